package pg

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgservicefile"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/twinspan/twinspan/internal/problem"
)

// A connection string may hold every parameter that libpq knows (manual, "Parameter Key
// Words"). pgconn takes those that it does not know for settings of the server, which
// refuses them when a session begins; here they get the meaning that they have in libpq.

// systemServices are the directories of the service file of the whole machine, behind
// PGSYSCONFDIR: Debian's, and where a server built from source looks.
var systemServices = []string{"/etc/postgresql-common", "/usr/local/pgsql/etc"}

// settled returns the string with what pgconn has to be told in its own words, and the
// parameters that libpq would use: those of the string over those of its service.
func settled(dsn string) (string, map[string]string) {
	params := connectionParameters(dsn)
	if service, file := serviceOf(params); service != nil {
		dsn = withParameter(dsn, "servicefile", file)
		maps.Copy(service, params)
		params = service
	}
	if a := os.Getenv("PGHOSTADDR"); a != "" && params["hostaddr"] == "" {
		dsn, params["hostaddr"] = withParameter(dsn, "hostaddr", a), a
	}
	if ports, changed := everyPort(params); changed {
		dsn = withParameter(dsn, "port", ports)
	}
	// pgconn would reach for the local socket.
	if params["hostaddr"] != "" && params["host"] == "" && os.Getenv("PGHOST") == "" {
		dsn = withParameter(dsn, "host", params["hostaddr"])
	}
	return dsn, params
}

// serviceOf returns the parameters of the service that a string or the environment names,
// and the file that holds them: the user's own, or the machine's. Neither is there
// for a string without a service, and for one that cannot be read.
func serviceOf(params map[string]string) (settings map[string]string, file string) {
	name := cmp.Or(params["service"], os.Getenv("PGSERVICE"))
	if name == "" {
		return nil, ""
	}
	files := []string{cmp.Or(params["servicefile"], os.Getenv("PGSERVICEFILE"))}
	if files[0] == "" {
		files = nil
		if home, err := os.UserHomeDir(); err == nil {
			files = append(files, filepath.Join(home, ".pg_service.conf"))
		}
	}
	if params["servicefile"] == "" {
		for _, dir := range append([]string{os.Getenv("PGSYSCONFDIR")}, systemServices...) {
			if dir != "" {
				files = append(files, filepath.Join(dir, "pg_service.conf"))
			}
		}
	}
	for _, file := range files {
		services, err := pgservicefile.ReadServicefile(file)
		if err != nil {
			continue
		}
		if s, err := services.GetService(name); err == nil {
			return maps.Clone(s.Settings), file
		}
	}
	return nil, ""
}

// withParameter adds a parameter to a string, over one that it has.
func withParameter(dsn, key, value string) string {
	return dsn + " " + key + "=" + quotedValue(value)
}

// everyPort gives each of several hosts its port: the default where the list leaves one out.
func everyPort(params map[string]string) (ports string, changed bool) {
	list := strings.Split(params["port"], ",")
	if len(list) < 2 {
		return "", false
	}
	for i, p := range list {
		if p == "" {
			list[i], changed = defaultPort, true
		}
	}
	return strings.Join(list, ","), changed
}

const defaultPort = "5432"

// ownParameters takes libpq's own parameters out of the settings that the server is sent,
// and gives config what they mean. One that means something that a session of the
// agent cannot do is a problem with code dsn_unsupported.
func ownParameters(config *pgx.ConnConfig) error {
	take := func(name string) string {
		v := config.RuntimeParams[name]
		delete(config.RuntimeParams, name)
		return v
	}
	// Without a meaning here: our sessions have their own names, TLS is not compressed,
	// Kerberos by the system's library is not used, replication is what a session
	// asks for itself, and of several hosts the primary is wanted.
	for _, name := range []string{"fallback_application_name", "sslcompression", "requiressl", "gsslib", "gssdelegation", "replication", "load_balance_hosts", "sslkeylogfile"} {
		take(name)
	}
	for name, harmless := range map[string]string{"gssencmode": "disable prefer", "sslcrl": "", "sslcrldir": "", "requirepeer": "", "scram_client_key": "", "scram_server_key": ""} {
		if v := take(name); v != "" && !strings.Contains(" "+harmless+" ", " "+v+" ") {
			return problem.New(problem.Invalid, "dsn_unsupported", "the agent does not know the connection parameter %s=%s", name, shown(name, v)).
				WithHint("leave it out of the connection string")
		}
	}
	if err := tlsVersions(config, take("ssl_min_protocol_version"), take("ssl_max_protocol_version")); err != nil {
		return err
	}
	if err := hostAddresses(config, take("hostaddr")); err != nil {
		return err
	}
	return keepAlive(config, take)
}

// shown is a parameter's value as an error may quote it.
func shown(name, value string) string {
	if strings.HasPrefix(name, "scram_") {
		return "..."
	}
	return value
}

func unreadable(name, value string) error {
	return problem.New(problem.Invalid, "dsn_invalid", "the connection string's %s cannot be %q", name, value)
}

// tlsVersions limits the versions of TLS.
func tlsVersions(config *pgx.ConnConfig, lowest, highest string) error {
	versions := map[string]uint16{"tlsv1": tls.VersionTLS10, "tlsv1.1": tls.VersionTLS11, "tlsv1.2": tls.VersionTLS12, "tlsv1.3": tls.VersionTLS13}
	low, ok := versions[strings.ToLower(lowest)]
	if lowest != "" && !ok {
		return unreadable("ssl_min_protocol_version", lowest)
	}
	high, ok := versions[strings.ToLower(highest)]
	if highest != "" && !ok {
		return unreadable("ssl_max_protocol_version", highest)
	}
	set := func(c *tls.Config) {
		if c != nil {
			c.MinVersion, c.MaxVersion = low, high
		}
	}
	set(config.TLSConfig)
	for _, f := range config.Fallbacks {
		set(f.TLSConfig)
	}
	return nil
}

// hostAddresses lets each host be reached at the address that stands at its place in the
// list; its certificate is still checked by its name.
func hostAddresses(config *pgx.ConnConfig, list string) error {
	if list == "" {
		return nil
	}
	hosts, _ := (&DSN{config: config}).members()
	addresses := strings.Split(list, ",")
	if len(addresses) != len(hosts) {
		return problem.New(problem.Invalid, "dsn_invalid", "the connection string has %d hosts and %d addresses (hostaddr)", len(hosts), len(addresses))
	}
	at := map[string]string{}
	for i, a := range addresses {
		if a == "" {
			continue
		}
		if net.ParseIP(a) == nil {
			return unreadable("hostaddr", a)
		}
		at[hosts[i]] = a
	}
	lookup := config.LookupFunc
	config.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		if a, ok := at[host]; ok {
			return []string{a}, nil
		}
		return lookup(ctx, host)
	}
	return nil
}

// keepAlive sets what finds out that the server is gone. Without a word it stays as
// pgconn has it.
func keepAlive(config *pgx.ConnConfig, take func(string) string) error {
	number := map[string]int{}
	for _, name := range []string{"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"} {
		v := take(name)
		if v == "" {
			continue
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return unreadable(name, v)
		}
		number[name] = n
	}
	if len(number) == 0 {
		return nil
	}
	seconds := func(name string) time.Duration { return time.Duration(number[name]) * time.Second }
	on, said := number["keepalives"]
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: !said || on != 0, Idle: seconds("keepalives_idle"), Interval: seconds("keepalives_interval"), Count: number["keepalives_count"],
	}}
	if !dialer.KeepAliveConfig.Enable {
		dialer.KeepAlive = -1
	}
	wait := number["tcp_user_timeout"]
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		tcp, ok := conn.(*net.TCPConn)
		if err != nil || !ok || wait == 0 {
			return conn, err
		}
		if err := userTimeout(tcp, wait); err != nil {
			conn.Close()
			return nil, fmt.Errorf("tcp_user_timeout: %w", err)
		}
		return conn, nil
	}
	return nil
}

// userTimeout sets how many milliseconds sent data may stay without an acknowledgement.
func userTimeout(conn *net.TCPConn, milliseconds int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, milliseconds)
	}); err != nil {
		return err
	}
	return set
}
