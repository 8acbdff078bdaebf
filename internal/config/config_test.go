package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

func TestEveryBadFileIsRefusedWithItsLine(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d bad files, %v", len(files), err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(text), "\n")
			want := strings.TrimPrefix(first, "# want ")
			if want == first {
				t.Fatal("the file does not say what is wanted")
			}
			_, err = Load(path)
			if err == nil {
				t.Fatal("accepted")
			}
			if want[0] >= '0' && want[0] <= '9' {
				want = path + ":" + want
			} else {
				want = path + ": " + want
			}
			if !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got  %s\nwant %s", err, want)
			}
			if problem.CodeOf(err) != "config_invalid" {
				t.Errorf("code %s", problem.CodeOf(err))
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the password: %s", err)
			}
		})
	}
}

func TestHandWrittenFileHasDefaults(t *testing.T) {
	c, err := Load("testdata/good/hand-written.toml")
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Name:     "b-2.eu_west",
		Postgres: Postgres{DSN: "postgres://postgres@db2,db3/postgres?sslmode=verify-full"},
		Endpoint: Endpoint{Listen: ":5022", Advertise: host + ":5022"},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestMissingFileSaysHowToBegin(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "twinspan.toml"))
	if problem.CodeOf(err) != "not_initialised" || !strings.Contains(problem.As(err).Hint, "twinspan init") {
		t.Errorf("%v", err)
	}
}

func TestWhatIsWrittenReadsBack(t *testing.T) {
	for name, c := range map[string]Config{
		"unmanaged": {Name: "a", Postgres: Postgres{DSN: "host=/tmp password='it''s \"q\" \\ é\t' user=x"},
			Endpoint: Endpoint{Listen: "127.0.0.1:5022", Advertise: "db1:5022"}, Limits: Limits{SeedWorkers: 2}},
		"hooks": {Name: "a", Postgres: Postgres{DSN: "host=/tmp"}, Endpoint: Endpoint{Listen: ":1", Advertise: "x:2"},
			Hooks: []Hook{{On: []string{"role", "problem.began"}, Command: []string{"/a \"b\"", "c d", ""}, Timeout: 90 * time.Second}, {Command: []string{"/all"}}}},
		"managed": {Name: "b", Postgres: Postgres{Managed: true, Port: 5433}, Endpoint: Endpoint{Listen: ":1", Advertise: "x:2"},
			API: API{Listen: ":5023"}, Limits: Limits{SeedWorkers: 3, SpillMB: 512}},
		"managed, for other machines": {Name: "b", Postgres: Postgres{Managed: true, Listen: "10.1.2.3, db1.example.com", Allow: []string{"10.0.0.0/8", "fd00::/8", "samenet"}},
			Endpoint: Endpoint{Listen: ":1", Advertise: "x:2"}, API: API{Listen: ":5023"}, Limits: Limits{SeedWorkers: 3}},
		"managed, any port, own certificate": {Name: "b", Postgres: Postgres{Managed: true}, Endpoint: Endpoint{Listen: ":1", Advertise: "x:2"},
			API: API{Listen: ":5023", Certificate: `C:\a "b".crt`, Key: "k"}, Limits: Limits{SeedWorkers: 64}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(Render(c))
			if err != nil || !reflect.DeepEqual(got, c) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, c)
			}
		})
	}
}

func TestHooksOfInit(t *testing.T) {
	for in, want := range map[string]Hook{
		"/usr/bin/page":                       {Command: []string{"/usr/bin/page"}},
		"/odd=name/page":                      {Command: []string{"/odd=name/page"}},
		"role=/bin/a=b":                       {On: []string{"role"}, Command: []string{"/bin/a=b"}},
		"problem.began,failover.done=/bin/it": {On: []string{"problem.began", "failover.done"}, Command: []string{"/bin/it"}},
	} {
		if got, err := ParseHook(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "page", "role=page", "rolle=/bin/a", "=/bin/a", "role.began=/bin/a", "role,=/bin/a"} {
		if got, err := ParseHook(in); problem.CodeOf(err) != "parameters_invalid" || problem.As(err).Hint == "" {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}

func TestEndpointOfInit(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]Endpoint{
		"127.0.0.1:7000":          {"127.0.0.1:7000", "127.0.0.1:7000"},
		"[::1]:7000":              {"[::1]:7000", "[::1]:7000"},
		"localhost:7000":          {"localhost:7000", "localhost:7000"},
		":7000":                   {":7000", host + ":7000"},
		"0.0.0.0:7000":            {"0.0.0.0:7000", host + ":7000"},
		"db1.example.com:7000":    {":7000", "db1.example.com:7000"},
		"Db1.Example.com:5022":    {":5022", "Db1.Example.com:5022"},
		"xn--bcher-kva.example:1": {":1", "xn--bcher-kva.example:1"},
	} {
		got, err := EndpointAt(in)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "db1", "db1:", "db1:0", "db1:65536", "db1:x", "https://db1:5022", "a b:1", "::1:5022"} {
		if got, err := EndpointAt(in); problem.CodeOf(err) != "endpoint_invalid" {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, dir := range []string{"bad", "good"} {
		files, err := filepath.Glob("testdata/" + dir + "/*.toml")
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range files {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(Render(c))
		if err != nil {
			t.Fatalf("%+v does not read back: %v\n%s", c, err, Render(c))
		}
		if !reflect.DeepEqual(again, c) && !bytes.Contains(text, []byte("\xff")) {
			t.Fatalf("got %+v\nwant %+v", again, c)
		}
	})
}

func TestWhereAManagedServerListens(t *testing.T) {
	managed := func(listen string, allow ...string) error {
		_, err := Parse(Render(Config{Name: "a", Postgres: Postgres{Managed: true, Listen: listen, Allow: allow}, Endpoint: Endpoint{Listen: ":1", Advertise: "x:2"}}))
		return err
	}
	for _, good := range []error{managed("*", "all"), managed("127.0.0.1,::1"), managed("db1", "samehost", "0.0.0.0/0")} {
		if good != nil {
			t.Error(good)
		}
	}
	for listen, allow := range map[string]string{"a b": "all", "x'; --": "all", "": "all", "*": "10.0.0.0", "0.0.0.0": "all trust", "::": "10.0.0.0/8\nhost all all all trust", "-": "all"} {
		if managed(listen, allow) == nil {
			t.Errorf("listen %q, allow %q", listen, allow)
		}
	}
}

// TestSettingsAreDocumented compares docs/settings.md with the file that init writes.
func TestSettingsAreDocumented(t *testing.T) {
	c := Config{Name: "a"}
	c.Postgres.DSN = "host=/var/run/postgresql user=postgres"
	c.Endpoint.Listen, c.Endpoint.Advertise = DefaultEndpoint(), "a.example:5022"
	managed := c
	managed.Postgres.DSN, managed.Postgres.Managed = "", true
	_, server, _ := strings.Cut(string(Render(managed)), "[postgres]\n")
	server, _, _ = strings.Cut(server, "\n[endpoint]")
	page := "# Settings of an agent\n\n<!-- written by make generated from what init writes -->\n\n`twinspan init` writes `twinspan.toml` into the agent's directory. It is read when the agent starts; an unknown key is an error.\n\n```toml\n" + string(Render(c)) +
		"```\n\nBeside a managed server:\n\n```toml\n[postgres]\n" + server + "```\n"
	file := filepath.Join("..", "..", "docs", "settings.md")
	if os.Getenv("TWINSPAN_GENERATE") != "" {
		if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != page {
		t.Errorf("docs/settings.md is stale (%v): run make generated", err)
	}
}
