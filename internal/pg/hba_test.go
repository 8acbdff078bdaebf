package pg_test

import (
	"context"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

func TestAdmitted(t *testing.T) {
	rule := func(kind, database, user, method, address string) pg.HBARule {
		return pg.HBARule{Type: kind, Databases: []string{database}, Users: []string{user}, Method: method, Address: address}
	}
	for name, c := range map[string]struct {
		rules []pg.HBARule
		want  []string
	}{
		"no rule":              {nil, nil},
		"everybody":            {[]pg.HBARule{rule("host", "all", "all", "scram-sha-256", "127.0.0.1")}, []string{"scram-sha-256"}},
		"another role":         {[]pg.HBARule{rule("host", "all", "app", "trust", "all")}, nil},
		"another database":     {[]pg.HBARule{rule("host", "stock", "all", "trust", "all")}, nil},
		"its group":            {[]pg.HBARule{rule("host", "sales", "+staff", "md5", "all")}, []string{"md5"}},
		"not its group":        {[]pg.HBARule{rule("host", "sales", "+admins", "md5", "all")}, nil},
		"replication":          {[]pg.HBARule{rule("host", "replication", "all", "md5", "all")}, nil},
		"same name":            {[]pg.HBARule{rule("host", "sameuser", "all", "md5", "all")}, nil},
		"same role":            {[]pg.HBARule{rule("host", "samerole", "all", "md5", "all")}, nil},
		"an expression":        {[]pg.HBARule{rule("host", "all", "/^sho", "cert", "all")}, []string{"cert"}},
		"another expression":   {[]pg.HBARule{rule("host", "all", "/^app", "cert", "all")}, nil},
		"not understood":       {[]pg.HBARule{rule("host", "all", `/a(?<!b)`, "cert", "all")}, []string{"cert"}},
		"rejected before":      {[]pg.HBARule{rule("host", "all", "shop", "reject", "all"), rule("host", "all", "all", "trust", "all")}, nil},
		"rejected elsewhere":   {[]pg.HBARule{rule("host", "all", "shop", "reject", "10.0.0.0"), rule("host", "all", "all", "trust", "all")}, []string{"trust"}},
		"rejected afterwards":  {[]pg.HBARule{rule("local", "all", "all", "peer", ""), rule("host", "all", "all", "reject", "all")}, []string{"peer"}},
		"several that let in":  {[]pg.HBARule{rule("local", "all", "all", "peer", ""), rule("hostssl", "sales", "shop", "cert", "all")}, []string{"peer", "cert"}},
		"only the other's one": {[]pg.HBARule{rule("local", "all", "postgres", "peer", "")}, nil},
	} {
		if got := pg.Admitted(c.rules, "sales", "shop", []string{"staff"}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := pg.Admitted([]pg.HBARule{rule("host", "samerole", "all", "md5", "all")}, "staff", "shop", []string{"staff"}); len(got) != 1 {
		t.Errorf("a database with the name of a group: %q", got)
	}
}

// TestRulesAreReadInOrder reads the rules of a real server, with one that it cannot use.
func TestRulesAreReadInOrder(t *testing.T) {
	s := pgtest.Shared(t)
	d, err := pg.ParseDSN(s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.Connect(t.Context(), pg.Session{Name: "hba"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rules, err := pg.HBARules(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	want := pgtest.Query(t, s.DSN("postgres"), `SELECT type, auth_method FROM pg_hba_file_rules WHERE error IS NULL ORDER BY line_number`)
	if len(rules) != len(want) || len(rules) == 0 {
		t.Fatalf("%+v, want %v", rules, want)
	}
	for i, r := range rules {
		if r.Type != want[i][0] || r.Method != want[i][1] || len(r.Databases) == 0 || len(r.Users) == 0 {
			t.Errorf("%+v, want %v", r, want[i])
		}
	}
	if len(pg.Admitted(rules, "postgres", "shop", nil)) == 0 {
		t.Errorf("the application is let in, not by %+v", rules)
	}
}
