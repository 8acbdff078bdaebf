package setup

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/tier"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func dir(t *testing.T, name string) config.Dir {
	t.Helper()
	d, err := config.OpenDir(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAgentIsMadeBesideARealServer(t *testing.T) {
	server := pgtest.Shared(t)
	in := Request{Dir: dir(t, "a b'c"), Name: "a", DSN: server.DSN("postgres"), Endpoint: "a.example.com:7000", API: "127.0.0.1:7001", Connect: true}
	made, err := Init(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if !made.Created || made.Name != "a" || made.Endpoint != "a.example.com:7000" || made.Tokens == nil || made.Tokens.Reader == made.Tokens.Operator {
		t.Errorf("%+v", made)
	}
	c, err := in.Dir.Load()
	if err != nil || c.Postgres.DSN != in.DSN || c.Endpoint.Listen != ":7000" || c.API.Listen != "127.0.0.1:7001" {
		t.Errorf("%+v, %v", c, err)
	}
	identity, err := peer.LoadIdentity(in.Dir.Path())
	if err != nil || identity.AgentID() != made.ID || identity.Fingerprint() != made.Fingerprint {
		t.Errorf("%v, %v", identity, err)
	}
	info, err := os.Stat(in.Dir.File())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	again, err := Init(t.Context(), in)
	if err != nil || again.Created || again.ID != made.ID || again.Tokens != nil {
		t.Errorf("%+v, %v", again, err)
	}
	in.Endpoint = "other.example.com:7000"
	if _, err := Init(t.Context(), in); problem.CodeOf(err) != "already_initialised" {
		t.Errorf("%v", err)
	}
}

func TestServerThatIsAwayLeavesNothing(t *testing.T) {
	in := Request{Dir: dir(t, "a"), Name: "a", DSN: "host=127.0.0.1 port=1 user=x password=hunter2", Connect: true}
	_, err := Init(t.Context(), in)
	p := problem.As(err)
	if p == nil || p.Code != "connection_lost" || p.Hint == "" || strings.Contains(p.Error(), "hunter2") {
		t.Errorf("%+v", p)
	}
	if _, err := os.Stat(in.Dir.Path()); !os.IsNotExist(err) {
		t.Errorf("the directory: %v", err)
	}
	in.Connect = false
	if _, err := Init(t.Context(), in); err != nil {
		t.Error(err)
	}
}

func TestInitThatWasCutOffIsCompletedByTheNext(t *testing.T) {
	in := Request{Dir: dir(t, "a"), Name: "a", Managed: true, Port: 6000, API: "127.0.0.1:7001"}
	first, err := Init(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	// The configuration is written last: without it, the rest is what a crash leaves.
	if err := os.Remove(in.Dir.File()); err != nil {
		t.Fatal(err)
	}
	second, err := Init(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if second.ID != first.ID || second.Tokens == nil || *second.Tokens == *first.Tokens || !second.Created {
		t.Errorf("%+v\n%+v", first, second)
	}
	if err := os.Remove(in.Dir.File()); err != nil {
		t.Fatal(err)
	}
	in.Name = "b"
	if _, err := Init(t.Context(), in); problem.CodeOf(err) != "identity_exists" {
		t.Errorf("%v", err)
	}
}

func TestSizeIsKeptAndNotChangedByAnotherInit(t *testing.T) {
	in := Request{Dir: dir(t, "a"), Name: "a", Managed: true, Port: 6000, Size: tier.Size{VCores: 2, Memory: 8 << 30, Storage: 100 << 30}}
	for range 2 {
		if _, err := Init(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	size, err := tier.Load(in.Dir.Size())
	if err != nil || size != in.Size.Complete() || size.Tier != tier.GeneralPurpose {
		t.Errorf("%+v, %v", size, err)
	}
	in.Size.VCores = 4
	if _, err := Init(t.Context(), in); problem.CodeOf(err) != "already_initialised" || !strings.Contains(problem.As(err).Hint, "instance set") {
		t.Errorf("%v", err)
	}
}

func TestWrongParametersAreRefusedBeforeAnythingIsMade(t *testing.T) {
	for code, in := range map[string]Request{
		"name_invalid":          {Name: "a/b", Managed: true},
		"endpoint_invalid":      {Name: "a", Managed: true, Endpoint: "x"},
		"dsn_invalid":           {Name: "a", DSN: "postgres://u:hunter2@h:p:q/"},
		"adopt_managed":         {Name: "a", Managed: true, Adopt: "any"},
		"parameters_invalid":    {Name: "a", Managed: true, API: "x"},
		"instance_size_invalid": {Name: "a", Managed: true, Tier: BusinessCritical, Size: tier.Size{VCores: 2, Memory: 8 << 30}},
	} {
		in.Dir = dir(t, "a")
		_, err := Init(context.Background(), in)
		if problem.CodeOf(err) != code || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", code, err)
		}
		if _, err := os.Stat(in.Dir.Path()); !os.IsNotExist(err) {
			t.Errorf("%s: the directory: %v", code, err)
		}
	}
}

// A managed server for other machines: its superuser's password is handed out once, in the
// answer or in a file, and is the one that the server gets.
func TestPasswordOfAServerForOthers(t *testing.T) {
	in := Request{Dir: dir(t, "a"), Name: "a", Managed: true, Listen: "*", Port: 6000}
	made, err := Init(t.Context(), in)
	if err != nil || len(made.Password) < 20 {
		t.Fatalf("%d letters, %v", len(made.Password), err)
	}
	server := instance.Server{Dir: in.Dir.Instance()}
	if kept, err := server.Password(); err != nil || kept != made.Password {
		t.Errorf("the server gets another one: %v", err)
	}
	if c, err := in.Dir.Load(); err != nil || c.Postgres.Listen != "*" || len(c.Postgres.Allow) != 1 || c.Postgres.Allow[0] != "all" {
		t.Errorf("%+v, %v", c.Postgres, err)
	}
	if again, err := Init(t.Context(), in); err != nil || again.Created || again.Password != "" {
		t.Errorf("shown again: %v", err)
	}
	in.Allow = []string{"10.0.0.0/8"}
	if _, err := Init(t.Context(), in); problem.CodeOf(err) != "already_initialised" {
		t.Errorf("for other networks: %v", err)
	}
	file := filepath.Join(t.TempDir(), "password")
	in = Request{Dir: dir(t, "b"), Name: "b", Managed: true, Listen: "127.0.0.1", Password: file}
	if made, err = Init(t.Context(), in); err != nil || made.Password != "" {
		t.Fatalf("%+v, %v", made, err)
	}
	text, err := os.ReadFile(file)
	info, _ := os.Stat(file)
	server.Dir = in.Dir.Instance()
	if kept, _ := server.Password(); err != nil || strings.TrimSpace(string(text)) != kept || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	in.Dir = dir(t, "c")
	if _, err := Init(t.Context(), in); problem.CodeOf(err) != "file_exists" || in.Dir.Initialised() {
		t.Errorf("%v", err)
	}
	in.Listen, in.Allow = "", []string{"all"}
	if _, err := Init(t.Context(), in); problem.CodeOf(err) != "parameters_invalid" {
		t.Errorf("%v", err)
	}
}
