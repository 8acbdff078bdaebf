package pg

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestConnectionParameters(t *testing.T) {
	for s, want := range map[string]map[string]string{
		"": {},
		`host=a sslmode = require  password='a b\'c' x=\ y`: {"host": "a", "sslmode": "require", "password": "a b'c", "x": " y"},
	} {
		if got := connectionParameters(s); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", s, got, want)
		}
	}
}

func TestEnvironNamesEveryHostOnce(t *testing.T) {
	d, err := ParseDSN("postgres://u:se%20cret@a:1,b:2/db?sslmode=prefer&options=-c%20work_mem%3D1MB")
	if err != nil {
		t.Fatal(err)
	}
	env := d.WithDatabase("other").Environ("sales/schema", "-c a=b")
	for _, want := range []string{
		"PGHOST=a,b", "PGPORT=1,2", "PGUSER=u", "PGPASSWORD=se cret", "PGDATABASE=other", "PGSSLMODE=prefer",
		"PGOPTIONS=-c work_mem=1MB -c a=b", "PGTARGETSESSIONATTRS=read-write",
	} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing in %s", want, strings.Join(env, "\n"))
		}
	}
	at := slices.IndexFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "PGAPPNAME=twinspan/sales/schema ") })
	if at < 0 || !IsOwnProgram(strings.TrimPrefix(env[at], "PGAPPNAME=")) || IsOwnProgram("twinspan/sales/schema") {
		t.Errorf("the name of the program's sessions: %s", strings.Join(env, "\n"))
	}
	long := strings.Repeat("x", 60)
	if name := programName(long + "/schema"); len(name) != 63 || !strings.HasPrefix(name, "twinspan/"+long[:50]) {
		t.Errorf("a long one: %q", name)
	}
}

func FuzzConnectionParameters(f *testing.F) {
	f.Add(`host=a sslmode = require  password='a b\'c'`)
	f.Fuzz(func(t *testing.T, s string) { connectionParameters(s) })
}
