package pg

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
)

// keywords gives a connection string the form of keywords and values. A URI is read as libpq
// reads it (fe-connect.c, conninfo_uri_parse), and not by the rules of the web: its host may be a
// directory, written as %2Fvar%2Frun%2Fpostgresql, each of several hosts has a port or the
// default, a plus sign stands for itself, and so does # in a password.
func keywords(dsn string) (string, error) {
	rest, isURI := strings.CutPrefix(dsn, "postgres://")
	if !isURI {
		if rest, isURI = strings.CutPrefix(dsn, "postgresql://"); !isURI {
			return dsn, nil
		}
	}
	params := map[string]string{}
	set := func(key, text string) error {
		value, err := url.PathUnescape(text)
		if err != nil || strings.Contains(value, "\x00") {
			return unreadableString()
		}
		if value != "" {
			params[key] = value
		}
		return nil
	}
	login, rest := uriLogin(rest)
	user, password, _ := strings.Cut(login, ":")
	place, query, _ := strings.Cut(rest, "?")
	places, database, _ := strings.Cut(place, "/")
	if login == "" && strings.Contains(database, "@") {
		return "", passwordAstray()
	}
	hosts, ports, err := uriHosts(places)
	if err != nil {
		return "", err
	}
	for _, p := range [][2]string{{"user", user}, {"password", password}, {"host", hosts}, {"port", ports}, {"dbname", database}} {
		if err := set(p[0], p[1]); err != nil {
			return "", err
		}
	}
	for _, p := range strings.FieldsFunc(query, func(r rune) bool { return r == '&' }) {
		key, value, ok := strings.Cut(p, "=")
		if key, err = url.PathUnescape(key); err != nil || !ok || !isKeyword(key) || strings.Contains(value, "=") {
			return "", unreadableString()
		}
		if key == "ssl" && value == "true" { // of JDBC's strings
			key, value = "sslmode", "require"
		}
		delete(params, key)
		if err := set(key, value); err != nil {
			return "", err
		}
	}
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(params)) {
		b.WriteString(key + "=" + quotedValue(params[key]) + " ")
	}
	return strings.TrimSpace(b.String()), nil
}

// uriLogin takes user and password from the front. A password may hold a ?, and, other than with
// libpq, for which it is the host's, an @.
func uriLogin(rest string) (login, behind string) {
	place, _, _ := strings.Cut(rest, "/")
	at := strings.LastIndex(place[:len(place)-len(queryOf(place))], "@")
	if at < 0 {
		at = strings.Index(place, "@")
	}
	if at < 0 {
		return "", rest
	}
	return rest[:at], rest[at+1:]
}

// queryOf is what stands behind the first question mark, with it.
func queryOf(s string) string {
	if i := strings.IndexByte(s, '?'); i >= 0 {
		return s[i:]
	}
	return ""
}

// uriHosts reads hosts, each with a port or without, into lists of as many elements.
func uriHosts(places string) (hosts, ports string, err error) {
	for i, place := range strings.Split(places, ",") {
		host, port, _ := strings.Cut(place, ":")
		if strings.HasPrefix(place, "[") {
			address, behind, closed := strings.Cut(place[1:], "]")
			if !closed || address == "" || behind != "" && behind[0] != ':' {
				return "", "", unreadableString()
			}
			host, port = address, strings.TrimPrefix(behind, ":")
		}
		if i > 0 {
			hosts, ports = hosts+",", ports+","
		}
		hosts, ports = hosts+host, ports+port
	}
	return hosts, ports, nil
}

func isKeyword(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

func quotedValue(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

// unreadableString does not quote the string: it may hold a password anywhere.
func unreadableString() error {
	return problem.New(problem.Invalid, "dsn_invalid", "the connection string cannot be read").
		WithHint("write it as postgres://user:password@host:5432/postgres or host=... port=... user=... dbname=...")
}

func passwordAstray() error {
	return problem.New(problem.Invalid, "dsn_invalid", "the connection string has an @ or / that does not belong there").
		WithHint("write such characters of a password as %%40 and %%2F")
}
