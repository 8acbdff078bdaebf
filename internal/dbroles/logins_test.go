package dbroles

import (
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/pg"
)

func TestLoginsAreCompared(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	nonce, other := []byte("n"), []byte("m")
	scram := func(name, salt string) pg.Role {
		return pg.Role{Name: name, Login: true, Inherit: true, Limit: -1, Password: true, Verifier: pg.Verifier("SCRAM-SHA-256$4096:" + salt)}
	}
	there := []pg.Role{scram("same", "a"), scram("gone", "a"), scram("closed", "a"), scram("bare", "a"), scram("set_anew", "a"), scram("shut_out", "a"), scram("unconnected", "a"), scram("old_hash", "a"),
		{Name: "group"}, {Name: "member", Limit: -1, BypassRLS: true, MemberOf: []pg.Membership{{Role: "group"}}}}
	there[7].Verifier = "md5abc"
	here := []pg.Role{scram("same", "a"), scram("closed", "a"), scram("bare", "a"), scram("set_anew", "b"), scram("shut_out", "a"), scram("unconnected", "a"), scram("old_hash", "a"),
		{Name: "group"}, {Name: "member", Limit: -1}}
	here[1].Login, here[2].Password, here[2].Verifier, here[6].Verifier = false, false, "", "md5abc"
	twin := twinRoles{roles: here, digests: digests(nonce, here), connect: map[string]bool{},
		rules: []pg.HBARule{{Type: "host", Databases: []string{"all"}, Users: []string{"shut_out"}, Method: "reject", Address: "all"}, {Type: "host", Databases: []string{"sales"}, Users: []string{"all"}, Method: "scram-sha-256", Address: "all"}}}
	for _, r := range here {
		twin.connect[r.Name] = r.Name != "unconnected"
	}
	answer := RightsResponse{Roles: there, Digests: digests(nonce, there), Used: map[string]time.Time{"gone": at, "bare": at, "same": at}}
	list := compareLogins(answer, twin, "sales")
	for i, want := range []string{
		"same same same", "gone missing missing it is missing there", "closed differs same it may not log in there", "bare same missing it has no password there", "set_anew same differs",
		"shut_out same same no line of pg_hba.conf lets it connect to the database there", "unconnected same same it has no right to connect to the database there", "old_hash same unknown",
		"group same none", "member differs none",
	} {
		r := list[i]
		if got := strings.TrimSpace(strings.Join([]string{r.Name, string(r.State), string(r.Password), r.Refused}, " ")); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := strings.Join(list[9].Lacks, ","); got != "BYPASSRLS,membership in group" {
		t.Error(got)
	}
	if p := cannotLogIn(list, "sales", "sales"); p == nil || p.Code != "role_cannot_log_in" || p.Subject != "gone" || !strings.Contains(p.Text, "so could 1 other") {
		t.Errorf("%+v", p)
	}
	if p := cannotLogIn(compareLogins(RightsResponse{Roles: there[:1], Used: answer.Used}, twin, "sales"), "sales", "sales"); p != nil {
		t.Errorf("%+v", p)
	}
	// What cannot be known is not held against anybody.
	twin.rules = nil
	if r := compareLogins(RightsResponse{Roles: there[5:6]}, twin, "sales")[0]; r.Refused != "" || r.Password != api.PasswordUnknown {
		t.Errorf("%+v", r)
	}
	// A digest says nothing without its nonce, and none is made of what can be guessed.
	if a, b := digests(nonce, there), digests(other, there); a["same"] == b["same"] || a["same"] == a["gone"] || a["old_hash"] != "" || strings.Contains(a["same"], "SCRAM") {
		t.Errorf("%v, %v", a, b)
	}
}
