package test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// codeNote is what code of eve's wrote into a server's log: as whom it ran.
type codeNote struct{ database, application, kind, user, session, powers, wrote string }

var noteLine = regexp.MustCompile(`(?m)^[^\[\n]*\[\d+\] (\S*) (.*?) ?[A-Z]+:  matrix\|([a-z_]+)\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|end(?: at character \d+)?$`)

// notesOf reads the notes of a server from an offset on, and returns where its log ends.
func notesOf(t *testing.T, s *pgtest.Server, from int) (notes []codeNote, end int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(s.DataDir()), "server.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range noteLine.FindAllStringSubmatch(string(text[from:]), -1) {
		notes = append(notes, codeNote{m[1], strings.TrimPrefix(m[2], "[unknown]"), m[3], m[4], m[5], m[6], m[7]})
	}
	return notes, len(text)
}

// fault says what is wrong with a note of a stage on a server (p, t); nothing, when the code ran as its owner or
// as an application that called it, and had no way to more.
func (n codeNote) fault(stage, side, place string) string {
	switch {
	case n.user == "linkagent" && n.kind == "event_trigger_always" && alwaysFires(stage, side, place):
		return ""
	case n.user != "eve" && (n.user != n.session || n.session != "shop" && !(n.session == "postgres" && n.application == "")):
		return "ran as " + n.user
	case n.powers != "" && n.user != "postgres":
		return "has a way to more: " + n.powers
	// Whoever gives a command may write in it; only what is applied must not.
	case n.wrote != "" && n.session == "linkagent" && place == "t" && !slices.Contains([]string{"seeding", "replay", "failover", "lost"}, stage):
		return "wrote in a session of an agent"
	}
	return ""
}

// alwaysFires says whether an event trigger that is enabled as ALWAYS cannot be kept from firing at what the agent
// does there: on a server that is a primary, or was it when its twin was made, or is nobody's twin any more. A
// superuser made it part of every command there, whoever gives it (docs/security.md).
func alwaysFires(stage, side, place string) bool {
	return side == "a" || place == "p" || stage == "failover" || stage == "delete"
}

// codeMatrix is what was noted in each cell.
type codeMatrix struct {
	t      *testing.T
	p      *linktest.Pair
	kinds  []codeKind
	ends   map[*linktest.Side]int
	stages []string
	seen   map[string]int // by kind, stage and place
	faults map[string]int // by what is wrong, and where
	next   int            // the key of rows to be written
}

// stage does something and files what was noted meanwhile. Notes of the test's own superuser,
// who changes the twin behind the link's back, are not of interest.
func (m *codeMatrix) stage(name string, do func()) {
	m.t.Helper()
	m.stages = append(m.stages, name)
	do()
	primary := m.p.A
	if l, err := m.p.B.Client.Link(m.t.Context(), "code"); err == nil && l.Role == api.Primary {
		primary = m.p.B
	}
	for _, side := range []*linktest.Side{m.p.A, m.p.B} {
		place := "t"
		if side == primary {
			place = "p"
		}
		notes, end := notesOf(m.t, side.Server, m.ends[side])
		m.ends[side] = end
		for _, n := range notes {
			if n.application == "tamper" || n.database != "code" {
				continue
			}
			m.seen[n.kind+" "+name+" "+place]++
			if fault := n.fault(name, side.Name, place); fault != "" {
				m.faults[fmt.Sprintf("%s in %s on %s in %q: %s", n.kind, name, side.Name, n.application, fault)]++
			}
		}
	}
}

// each gives every kind's SQL to a database as a role, a session for each kind.
func (m *codeMatrix) each(side *linktest.Side, role string, sql func(codeKind) string) {
	m.t.Helper()
	for _, k := range m.kinds {
		if text := sql(k); text != "" {
			pgtest.Exec(m.t, side.Server.DSNOf(role, pgtest.Password, "code"), inWords(side.Server.Major, text))
		}
	}
}

// write has eve, and an application that she lets do so, write rows at every kind.
func (m *codeMatrix) write(side *linktest.Side) {
	m.t.Helper()
	m.each(side, "eve", func(k codeKind) string { return k.rows(m.next) })
	m.each(side, "shop", func(k codeKind) string {
		if k.name == "rule" || k.name == "rule_always" || k.name == "instead" {
			return "" // its table is eve's alone
		}
		return k.fill(`INSERT INTO eve.t_%[1]s (i, x) VALUES (%[2]d, %[2]d); UPDATE eve.t_%[1]s SET x = x + 200000 WHERE i = %[2]d`, m.next+3)
	})
	m.next += 10
}

// tamper changes the twin's rows as only a superuser can who means to.
func (m *codeMatrix) tamper(side *linktest.Side, sql ...string) {
	m.t.Helper()
	pgtest.Exec(m.t, side.Server.DSN("code")+"&application_name=tamper",
		append([]string{`SET session_replication_role = replica`, `SET twinspan.pass_gate = on`, `SET default_transaction_read_only = off`}, sql...)...)
}

// print writes the matrix: a line for each kind, a column for each stage, with p and t where
// the kind's function was called on the primary's and on the twin's server.
func (m *codeMatrix) print() {
	var b strings.Builder
	fmt.Fprintf(&b, "%-22s", "")
	for _, s := range m.stages {
		fmt.Fprintf(&b, " %-*s", max(len(s), 2), s)
	}
	for _, k := range m.kinds {
		fmt.Fprintf(&b, "\n%-22s", k.name)
		for _, s := range m.stages {
			cell := ""
			for _, place := range []string{"p", "t"} {
				if m.seen[k.name+" "+s+" "+place] > 0 {
					cell += place
				}
			}
			fmt.Fprintf(&b, " %-*s", max(len(s), 2), cell)
		}
	}
	m.t.Log("\n" + b.String())
}

// makeCode makes every kind in a database.
func makeCode(t *testing.T, s *linktest.Side, database string, kinds []codeKind) {
	t.Helper()
	eve, admin := s.Server.DSNOf("eve", pgtest.Password, database), s.Server.DSN(database)
	pgtest.Exec(t, admin, eveIs)
	for _, k := range kinds {
		before, by, after := k.made()
		pgtest.Exec(t, eve, inWords(s.Server.Major, before))
		if by != "" {
			pgtest.Exec(t, admin, inWords(s.Server.Major, by))
		}
		pgtest.Exec(t, eve, inWords(s.Server.Major, after))
	}
}

// inWords writes SQL in words that a server's version knows.
func inWords(major int, sql string) string {
	if major >= 11 {
		return sql
	}
	return strings.NewReplacer("EXECUTE FUNCTION", "EXECUTE PROCEDURE", "(FUNCTION = ", "(PROCEDURE = ").Replace(sql)
}

// Wherever the owner of a table can have the server call a function of hers, it runs as
// herself or as whoever wrote to her table, on both servers, in everything that a link does.
func TestCodeOfUsersRunsAsItsOwner(t *testing.T) {
	t.Parallel()
	if os.Getenv(matrixVariable) != "all" {
		codeOfUsers(t, 0, 0)
		return
	}
	for _, pairing := range [][2]int{{10, 14}, {12, 18}, {14, 17}, {15, 15}, {17, 14}, {18, 18}} {
		t.Run(fmt.Sprintf("%d to %d", pairing[0], pairing[1]), func(t *testing.T) { codeOfUsers(t, pairing[0], pairing[1]) })
	}
}

func codeOfUsers(t *testing.T, primary, secondary int) {
	brief := []pgtest.Option{pgtest.WithSetting("log_error_verbosity", "terse"), pgtest.WithSetting("log_min_error_statement", "panic")}
	p := linktest.New(t, linktest.Options{ServerA: append(brief, version(primary)...), ServerB: append(brief, version(secondary)...)})
	for _, s := range []*linktest.Side{p.A, p.B} {
		pgtest.Exec(t, s.Server.DSN("postgres"), `CREATE ROLE eve LOGIN PASSWORD 'it''s 5@/%#'`)
	}
	p.A.Server.CreateDatabase(t, "code")
	pgtest.Exec(t, p.A.Server.DSN("code"), `GRANT CREATE ON DATABASE code TO eve`)
	m := &codeMatrix{t: t, p: p, kinds: codeKinds(p.A.Server.Major), ends: map[*linktest.Side]int{}, seen: map[string]int{}, faults: map[string]int{}, next: 11}
	makeCode(t, p.A, "code", m.kinds)
	m.everyKindIsNoted()
	defer m.print()
	m.run()
	m.judge()
}

// everyKindIsNoted does, in a database without a link, what an agent must not do, at every kind: each gives a note
// that is found fault with.
func (m *codeMatrix) everyKindIsNoted() {
	t := m.t
	t.Helper()
	m.p.A.Server.CreateDatabase(t, "plain")
	pgtest.Exec(t, m.p.A.Server.DSN("plain"), `GRANT CREATE ON DATABASE plain TO eve`)
	makeCode(t, m.p.A, "plain", m.kinds)
	for _, k := range m.kinds {
		_, from := notesOf(t, m.p.A.Server, 0)
		pgtest.Exec(t, m.p.A.Server.DSN("plain")+"&application_name=naive", k.naively())
		notes, _ := notesOf(t, m.p.A.Server, from)
		if !slices.ContainsFunc(notes, func(n codeNote) bool {
			return n.kind == k.name && n.application == "naive" && n.fault("check", "b", "t") != ""
		}) {
			t.Errorf("%s: nothing is noted of: %s", k.name, k.naively())
		}
	}
	_, m.ends[m.p.A] = notesOf(t, m.p.A.Server, 0)
}

// judge fails the test where code ran as somebody else, and where it did not run though it has to.
func (m *codeMatrix) judge() {
	for _, fault := range slices.Sorted(maps.Keys(m.faults)) {
		m.t.Errorf("%d times %s", m.faults[fault], fault)
	}
	for _, k := range m.kinds {
		for _, cell := range strings.Fields(k.must) {
			stage, places, _ := strings.Cut(cell, ":")
			if !slices.Contains(m.stages, stage) {
				continue // its primary is too old to be a secondary
			}
			for _, place := range places {
				if m.seen[k.name+" "+stage+" "+string(place)] == 0 {
					m.t.Errorf("%s was not called in %s at %c", k.name, stage, place)
				}
			}
		}
		for _, stage := range m.stages {
			there, here := m.seen[k.name+" "+stage+" t"], m.seen[k.name+" "+stage+" p"]
			if applied := !slices.Contains([]string{"replay", "failover", "lost", "delete"}, stage); k.aside && applied && there > 0 || k.never != "" && there+here > 0 {
				m.t.Errorf("%s was called in %s: %d times on the primary, %d on the twin", k.name, stage, here, there)
			}
		}
	}
}

// run goes through all that a link does.
func (m *codeMatrix) run() {
	t, p := m.t, m.p
	t.Helper()
	m.stage("check", func() {
		check, err := p.A.Client.Check(t.Context(), api.CheckRequest{Database: "code", Peer: "b"})
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(check.Findings, func(f api.Finding) bool { return f.Severity == api.Blocks }) {
			t.Errorf("check says %+v", check.Findings)
		}
	})
	m.stage("create", func() {
		request := api.CreateLink{Name: "code", Database: "code", Peer: "b"}
		_, err := p.A.Client.CreateLink(t.Context(), request)
		refusedWith(t, "event triggers that run code of eve's", err, "event_trigger_of_role")
		request.Accept = []string{"event_trigger_of_role"}
		if _, err := p.A.Client.CreateLink(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	})
	m.stage("seeding", func() { p.WaitPhase(t, "code", api.Replicating); p.WaitApplied(t, "code", "code") })
	m.stage("streaming", func() { m.write(p.A); p.WaitApplied(t, "code", "code") })
	m.stage("replay", func() {
		m.each(p.A, "eve", func(k codeKind) string { return k.fill(k.change) })
		arrived(t, p, "code", "code")
	})
	m.stage("verify", func() { m.equal() })
	m.stage("repair", func() {
		for i, k := range m.kinds {
			m.tamper(p.B, k.fill(`UPDATE eve.t_%[1]s SET x = -x WHERE i = 1`), k.fill(`DELETE FROM eve.t_%[1]s WHERE i = 3`), k.fill(`INSERT INTO eve.t_%[1]s (i, x) VALUES (%[2]d, 7)`, 7000+i))
		}
		v := verify(t, p.B.Client, "code", api.Verify{Repair: true, Values: true})
		if v.State != api.Repaired || v.RepairedRows < 2*len(m.kinds) {
			t.Errorf("the repair says %s: %d rows, problem %+v", v.State, v.RepairedRows, v.Problem)
		}
	})
	m.stage("drift", func() {
		m.tamper(p.B, `ALTER TABLE eve.t_check ADD tampered int`)
		stopped(t, p, "code", "eve.t_check.tampered")
		m.tamper(p.B, `ALTER TABLE eve.t_check DROP tampered`)
		resume(t, p, "code")
		m.equal()
	})
	m.stage("restart", func() {
		for _, s := range []*linktest.Side{p.A, p.B} {
			s.Stop()
			s.Start()
		}
		p.WaitPhase(t, "code", api.Replicating)
		m.write(p.A)
		p.WaitApplied(t, "code", "code")
	})
	if p.A.Server.Major < secondaries[0] {
		m.stage("delete", func() {
			if _, err := p.B.Client.DeleteLink(t.Context(), "code", false); err != nil {
				t.Error(err)
			}
		})
		return
	}
	m.stage("failover", func() {
		for _, s := range []*linktest.Side{p.B, p.A} {
			p.WaitPhase(t, "code", api.Replicating)
			if f := failOver(t, s, "code", api.FailoverRequest{}); f.State != api.FailoverDone {
				t.Fatalf("failover: %+v", f)
			}
		}
	})
	m.stage("lost", func() {
		p.WaitPhase(t, "code", api.Replicating)
		p.A.Kill()
		m.write(p.A)
		force(t, p.B, "code")
		m.next -= 10 // the same keys
		m.write(p.B)
		p.A.Start()
		parting := waitFenced(t, p.A, "code")
		if changes := lostChanges(t, p.A, "code", parting.Epoch); len(changes) < 5*len(m.kinds) {
			t.Errorf("%d lost changes are told", len(changes))
		}
	})
	m.stage("rejoin", func() {
		plan, err := p.B.Client.RejoinPlan(t.Context(), "code")
		if err != nil {
			t.Fatal(err)
		}
		rejoin(t, p, p.A, "code", plan.Needs...)
		m.equal()
	})
	m.stage("delete", func() {
		if _, err := p.B.Client.DeleteLink(t.Context(), "code", false); err != nil {
			t.Error(err)
		}
	})
}

// equal fails the test unless a verification says that both sides are equal.
func (m *codeMatrix) equal() {
	m.t.Helper()
	if v := verify(m.t, m.p.A.Client, "code", api.Verify{}); v.State != api.Equal || v.Rows == 0 {
		m.t.Errorf("verify says %s: %q, problem %+v", v.State, told(v), v.Problem)
	}
}
