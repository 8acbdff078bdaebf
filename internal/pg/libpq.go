package pg

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// passedOn are the parameters of a connection string that a client program
// needs besides host, port, user, password and database, with the environment
// variables that carry them (manual, "Environment Variables" of libpq).
var passedOn = []struct{ parameter, variable string }{
	{"sslmode", "PGSSLMODE"}, {"sslcert", "PGSSLCERT"}, {"sslkey", "PGSSLKEY"}, {"sslrootcert", "PGSSLROOTCERT"}, {"sslcertmode", "PGSSLCERTMODE"},
	{"sslcrl", "PGSSLCRL"}, {"sslsni", "PGSSLSNI"}, {"sslnegotiation", "PGSSLNEGOTIATION"},
	{"ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"}, {"ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"},
	{"channel_binding", "PGCHANNELBINDING"}, {"require_auth", "PGREQUIREAUTH"}, {"gssencmode", "PGGSSENCMODE"},
	{"krbsrvname", "PGKRBSRVNAME"}, {"client_encoding", "PGCLIENTENCODING"},
}

// forPrograms are those of a string's parameters that are passed on.
func forPrograms(params map[string]string) map[string]string {
	given := map[string]string{}
	for _, p := range passedOn {
		if v, ok := params[p.parameter]; ok {
			given[p.parameter] = v
		}
	}
	if a := params["hostaddr"]; a != "" {
		given["hostaddr"] = a
	}
	return given
}

// Environ returns the environment in which PostgreSQL's client programs, run
// without any connection argument, reach what the string names. The password
// travels in it, for arguments are seen by every user of the machine. name is
// shown in pg_stat_activity behind "twinspan/", with a number (IsOwnProgram); options are settings as in
// PGOPTIONS ("-c name=value"), behind those of the string.
func (d *DSN) Environ(name, options string) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "LC_") || strings.HasPrefix(kv, "LANG") ||
			strings.HasPrefix(kv, "PGOPTIONS=") || strings.HasPrefix(kv, "PGSERVICE=") || strings.HasPrefix(kv, "PGHOSTADDR=")
	})
	for _, p := range passedOn {
		if v, ok := d.params[p.parameter]; ok {
			env = append(env, p.variable+"="+v)
		}
	}
	if d.quiet(Session{}) { // they read
		options += " -c session_replication_role=replica"
	}
	hosts, ports := d.members()
	// Of the same number, for a host that is named twice is one here.
	if a := d.params["hostaddr"]; a != "" && strings.Count(a, ",") == len(hosts)-1 {
		env = append(env, "PGHOSTADDR="+a)
	}
	env = append(env, "LC_ALL=C", "PGHOST="+strings.Join(hosts, ","), "PGPORT="+strings.Join(ports, ","),
		"PGUSER="+d.config.User, "PGDATABASE="+d.config.Database, "PGAPPNAME="+programName(name),
		"PGOPTIONS="+strings.TrimSpace(d.config.RuntimeParams["options"]+" "+options), "PGCONNECT_TIMEOUT=10")
	if d.config.Password != "" {
		env = append(env, "PGPASSWORD="+d.config.Password)
	}
	if len(hosts) > 1 {
		env = append(env, "PGTARGETSESSIONATTRS=read-write")
	}
	return env
}

// members lists the hosts of the string, each once: pgconn repeats a host as a
// fallback when it may be tried both with TLS and without.
func (d *DSN) members() (hosts, ports []string) {
	add := func(host string, port uint16) {
		p := strconv.Itoa(int(port))
		for i := range hosts {
			if hosts[i] == host && ports[i] == p {
				return
			}
		}
		hosts, ports = append(hosts, host), append(ports, p)
	}
	add(d.config.Host, d.config.Port)
	for _, f := range d.config.Fallbacks {
		add(f.Host, f.Port)
	}
	return hosts, ports
}

// connectionParameters reads a connection string of keywords and values that pgx accepts.
func connectionParameters(s string) map[string]string {
	params := map[string]string{}
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		key, rest, ok := strings.Cut(s, "=")
		if !ok {
			return params
		}
		var value string
		value, s = connectionValue(strings.TrimLeft(rest, " \t\r\n"))
		params[strings.TrimSpace(key)] = value
	}
	return params
}

// connectionValue takes one value, bare or in single quotes, with backslash as
// the escape, from the front.
func connectionValue(s string) (value, rest string) {
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && c == '\'', !quoted && strings.IndexByte(" \t\r\n", c) >= 0:
			return b.String(), s[i+1:]
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), ""
}

// settle sets what not every supported version knows, so that it cannot be sent
// with the other settings when the session starts: timeouts that an administrator
// set as defaults, and JIT, which costs more than all of a query on the catalogs.
func settle(ctx context.Context, conn *pgconn.PgConn) error {
	return conn.Exec(ctx, SettleSQL).Close()
}

// settleUnseen is settle for a session that changes schemas unseen.
func settleUnseen(ctx context.Context, conn *pgconn.PgConn) error {
	return conn.Exec(ctx, SettleSQL+`; SELECT pg_catalog.set_config('event_triggers', 'off', false)
		WHERE pg_catalog.current_setting('event_triggers', true) OPERATOR(pg_catalog.=) 'on' AND pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on'`).Close()
}

// SettleSQL sets what every session of an agent sets once it is there: settings that not
// all versions know cannot come with its start, and the pass of a fenced session. RESET ALL takes them back.
const SettleSQL = `SELECT pg_catalog.set_config(n, v, false)
	FROM (VALUES ('idle_session_timeout', '0'), ('transaction_timeout', '0'), ('jit', 'off')) AS s (n, v)
	WHERE pg_catalog.current_setting(n, true) OPERATOR(pg_catalog.<>) v
	UNION ALL SELECT pg_catalog.set_config('` + passSetting + `', '` + fullPass + `', false) WHERE pg_catalog.current_setting('` + passSetting + `', true) OPERATOR(pg_catalog.=) '` + noPass + `'`
