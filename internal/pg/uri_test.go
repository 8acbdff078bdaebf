package pg

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

// What is wanted is what libpq makes of the strings (PQconninfo of versions 15 and 18): host,
// port, user, password, database.
func TestStringsMeanWhatTheyMeanToLibpq(t *testing.T) {
	for _, variable := range []string{"PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSERVICE"} {
		t.Setenv(variable, "")
	}
	for s, want := range map[string]string{
		"postgres://u@%2Fvar%2Frun%2Fpostgresql/db":               "/var/run/postgresql 5432 u  db",
		"postgresql://u@%2Ftmp:5433/db":                           "/tmp 5433 u  db",
		"postgres://u@/db?host=%2Ftmp":                            "/tmp 5432 u  db",
		"postgres://u@a,b:5433/db":                                "a,b 5432,5433 u  db",
		"postgres://u@a:5433,b/db":                                "a,b 5433,5432 u  db",
		"postgres://u:p%40ss@a:1,b:2,c:3/db?sslmode=require":      "a,b,c 1,2,3 u p@ss db",
		"postgres://u:p@ss@a/db":                                  "a 5432 u p@ss db", // libpq: the host ss@a
		"postgres://u:pa#ss@h/db":                                 "h 5432 u pa#ss db",
		"postgres://u:1?x@h/db":                                   "h 5432 u 1?x db",
		"postgres://u@[::1]:5433,[2001:db8::1234]/db":             "::1,2001:db8::1234 5433,5432 u  db",
		"postgres://u@h/db?password=a+b":                          "h 5432 u a+b db",
		"postgres://u@h?dbname=x@y":                               "h 5432 u  x@y",
		"postgres://u@h/data%2Fbase":                              "h 5432 u  data/base",
		"postgres:///?dbname=x&user=y&host=a,b&port=5444":         "a,b 5444,5444 y  x",
		"host=a,b port=,5433 user=u dbname=db":                    "a,b 5432,5433 u  db",
		`host = a user=u dbname = 'x y' password='it\'s \\ this'`: `a 5432 u it's \ this x y`,
	} {
		d, err := ParseDSN(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		hosts, ports := d.members()
		c := d.config
		if got := fmt.Sprintf("%s %s %s %s %s", strings.Join(hosts, ","), strings.Join(ports, ","), c.User, c.Password, c.Database); got != want {
			t.Errorf("%s: %s, want %s", s, got, want)
		}
		if env := d.Environ("x", ""); !slices.Contains(env, "PGHOST="+strings.Join(hosts, ",")) || !slices.Contains(env, "PGPORT="+strings.Join(ports, ",")) {
			t.Errorf("%s: programs are given %v", s, env)
		}
	}
	for _, s := range []string{
		"postgres://u:p/q@h/db", "postgres://u@h/db?bad", "postgres://u@h/db?sslmode=a=b", "postgres://u@h:5x/db", "postgres://u@h:70000/db",
		"postgres://u@[::1/db", "postgres://u@[::1]x/db", "postgres://u@h/%zz", "postgres://u@h/db?a%20b=c", "host=a,b port=1,2,3", "postgres://u@h/%00",
	} {
		if _, err := ParseDSN(s); problem.CodeOf(err) != "dsn_invalid" {
			t.Errorf("%s is taken: %v", s, err)
		}
	}
}

// Where the string does not name an address, the environment may.
func TestHostAddressOfTheEnvironment(t *testing.T) {
	t.Setenv("PGHOSTADDR", "127.0.0.9")
	for _, s := range []string{"host=h.invalid user=u", "postgres://u@h.invalid/db"} {
		d, err := ParseDSN(s)
		if err != nil {
			t.Fatal(err)
		}
		at, err := d.config.LookupFunc(t.Context(), "h.invalid")
		if err != nil || !slices.Equal(at, []string{"127.0.0.9"}) || !slices.Contains(d.Environ("x", ""), "PGHOSTADDR=127.0.0.9") {
			t.Errorf("%s leads to %v (%v)", s, at, err)
		}
	}
}

// Each host may have a line of its own in the file of passwords, a socket by its directory, and the
// database may have the user's name.
func TestPasswordsOfTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwords")
	text := "b:5433:*:u:of b\nlocalhost:*:db:u:local\n/srv/sockets:*:*:u:of the socket\nh:5432:u:u:own\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGPASSFILE", "")
	t.Setenv("PGPASSWORD", "")
	for s, want := range map[string]string{
		"postgres://u@a,b:5433/db":                  "of b",
		"host=/var/run/postgresql dbname=db user=u": "local",
		"host=/srv/sockets dbname=db user=u":        "of the socket",
		"host=h user=u dbname=''":                   "own",
		"host=h user=u password=given":              "given",
		"host=c user=u":                             "",
	} {
		if strings.Contains(s, "://") {
			s += "?passfile=" + file
		} else {
			s += " passfile='" + file + "'"
		}
		d, err := ParseDSN(s)
		if err != nil || d.config.Password != want {
			t.Errorf("%s: %q, want %q (%v)", s, d.config.Password, want, err)
		}
	}
}

func FuzzKeywords(f *testing.F) {
	f.Add("postgres://u:p@[::1]:1,b:2/db?sslmode=require")
	f.Fuzz(func(t *testing.T, s string) {
		if text, err := keywords(s); err == nil && strings.HasPrefix(text, "postgres") && text != "" && strings.HasPrefix(s, "postgresql://") {
			t.Errorf("%s stays a URI: %s", s, text)
		}
	})
}
