package pgtest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Password is that of the superuser and of the roles below on every server: one, so that a
// connection string can name several servers, and one that has to be quoted everywhere.
const Password = `it's 5@/%#`

// AgentRole is the superuser that agents log in as. It owns nothing of an application.
const AgentRole = "linkagent"

// AppRole owns every database that is made for a test: an application, no superuser.
const AppRole = "shop"

// hba is the rule of Debian's clusters, but for the socket: the user of the operating
// system who runs tests is not the one who runs the server.
const hba = `local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
`

// people makes the roles that every server has.
func (s *Server) people(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.run.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range []string{
		"SET synchronous_commit = local", // standbys that the server waits for come later
		"ALTER ROLE " + instance.Superuser + " PASSWORD " + sqlname.Literal(Password),
		"CREATE ROLE " + AgentRole + " SUPERUSER LOGIN PASSWORD " + sqlname.Literal(Password),
		"CREATE ROLE " + AppRole + " LOGIN PASSWORD " + sqlname.Literal(Password),
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	if err := s.drawn.setDatabase(ctx, conn, "postgres"); err != nil {
		return err
	}
	return s.drawn.setRole(ctx, conn)
}

// DSN returns the connection string of the superuser who looks after the server to a
// database.
func (s *Server) DSN(database string) string { return s.DSNOf(instance.Superuser, Password, database) }

// AgentDSN returns the connection string of an agent beside the server.
func (s *Server) AgentDSN() string { return AgentDSNOf(s) }

// AppDSN returns the connection string of the application that owns a database.
func (s *Server) AppDSN(database string) string { return s.DSNOf(AppRole, Password, database) }

// DSNOf returns a role's connection string to a database.
func (s *Server) DSNOf(role, password, database string) string {
	return dsn(role, password, database, s)
}

// DSNOfBoth returns the superuser's connection string that names both servers, as an HA
// cluster's does.
func DSNOfBoth(a, b *Server, database string) string {
	return dsn(instance.Superuser, Password, database, a, b)
}

// AgentDSNOf is AgentDSN for an HA cluster.
func AgentDSNOf(members ...*Server) string {
	all := dsn(AgentRole, Password, "postgres", members...)
	if options := members[0].drawn.options(); options != "" {
		all += "&options=" + strings.ReplaceAll(url.QueryEscape(options), "+", "%20")
	}
	return all
}

// DSNAt returns the superuser's connection string to a database of whatever server is
// behind an address.
func DSNAt(address, database string) string {
	return connectionURL(instance.Superuser, Password, address, database, "require")
}

func dsn(role, password, database string, servers ...*Server) string {
	var hosts []string
	for _, s := range servers {
		hosts = append(hosts, net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)))
	}
	return connectionURL(role, password, strings.Join(hosts, ","), database, servers[0].sslmode())
}

func connectionURL(role, password, hosts, database, sslmode string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, password), Host: hosts, Path: "/" + database, RawQuery: "sslmode=" + sslmode}
	return u.String()
}

// Conninfo returns the superuser's connection string to a database as a list of key=value,
// to which others can be added. Of several servers it names all.
func Conninfo(database string, servers ...*Server) string {
	return conninfo(instance.Superuser, database, servers...)
}

// AppConninfo is Conninfo for the application that owns the database.
func AppConninfo(database string, servers ...*Server) string {
	return conninfo(AppRole, database, servers...)
}

func conninfo(role, database string, servers ...*Server) string {
	var hosts, ports []string
	for _, s := range servers {
		hosts, ports = append(hosts, "127.0.0.1"), append(ports, strconv.Itoa(s.Port))
	}
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }
	return fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=%s", strings.Join(hosts, ","), strings.Join(ports, ","),
		role, quote(Password), quote(database), servers[0].sslmode())
}

// sockets are the directories of servers' Unix sockets, by port.
var sockets sync.Map

// overSocket returns a DSN that leads over the server's Unix socket to what one of DSN and
// AppDSN leads to: without TLS and a password, a short session costs both ends half as much.
// It is "" for any other.
func overSocket(dsn string) string {
	u, err := url.Parse(dsn)
	if err != nil || u.Hostname() != "127.0.0.1" {
		return ""
	}
	if name := u.User.Username(); name != instance.Superuser && name != AppRole {
		return ""
	}
	port, err := strconv.Atoi(u.Port()) // one that lists several servers has none
	if err != nil {
		return ""
	}
	dir, have := sockets.Load(port)
	if !have {
		return ""
	}
	u.Host = ""
	parameters := u.Query()
	parameters.Set("host", dir.(string))
	parameters.Set("port", strconv.Itoa(port))
	parameters.Set("sslmode", "disable")
	u.RawQuery = parameters.Encode()
	return u.String()
}

func (s *Server) sslmode() string {
	if s.options.noTLS {
		return "disable"
	}
	return "require"
}
