package schema

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/sqlname"
)

func name(s string) sqlname.Table { return sqlname.Table{Schema: "s", Name: s} }

func entry(id int, kind string, needs ...int) stored {
	return stored{number: id, Entry: Entry{ID: id, Kind: kind, Needs: needs, Table: name("t")}}
}

func TestStages(t *testing.T) {
	parent, child := entry(1, kindConstraint), entry(2, kindConstraint, 1, 500)
	child.Identity = true
	entries := []stored{
		parent, child, entry(3, kindIndex), entry(4, kindAttach, 1, 2), entry(5, kindForeignKey, 4), entry(6, "VIEW", 2),
		entry(7, "MATERIALIZED VIEW", 6), entry(8, kindIndex, 7), entry(9, "COMMENT", 3), entry(10, kindEvent), entry(11, "TRIGGER"), entry(12, kindRefresh),
	}
	want := []stage{stageIdentity, stageIdentity, stageIndex, stageAttach, stageForeignKey, stageOther, stageOther, stageOther, stageOther, stageLast, stageOther, stageRefresh}
	if got := stages(entries); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if got := closure(entries, func(e *stored) bool { return e.ID == 5 }); !slices.Equal(got, []int{0, 1, 3, 4}) {
		t.Errorf("the foreign key needs %v", got)
	}
}

func TestLocks(t *testing.T) {
	root := func(t sqlname.Table) sqlname.Table {
		if t == name("leaf") {
			return name("top")
		}
		return t
	}
	for _, c := range []struct {
		e    Entry
		want []lock
	}{
		{Entry{Kind: kindIndex, Table: name("leaf")}, []lock{{`"s"."leaf"`, false}}},
		{Entry{Kind: kindConstraint, Table: name("leaf")}, []lock{{`"s"."leaf"`, true}}},
		{Entry{Kind: kindForeignKey, Table: name("leaf"), Refers: name("b")}, []lock{{`"s"."top"`, true}, {`"s"."b"`, true}}},
		{Entry{Kind: kindForeignKey, Table: name("leaf"), Refers: name("top")}, []lock{{`"s"."top"`, true}}},
		{Entry{Kind: kindAttach}, []lock{{"", true}}},
		{Entry{Kind: "TRIGGER", Table: name("leaf")}, []lock{{"", true}}},
		{Entry{Kind: kindRefresh, Table: name("mv")}, nil},
	} {
		if got := locks(&c.e, root); !slices.Equal(got, c.want) {
			t.Errorf("%v locks %v", c.e, got)
		}
	}
}

func TestQueueKeepsNeedsAndLocks(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		var tasks []task
		for id := 1; id <= 40; id++ {
			n := task{entry: entry(id, kindIndex)}
			for range random.IntN(3) {
				n.entry.Needs = append(n.entry.Needs, 1+random.IntN(id)) // perhaps itself
			}
			for _, table := range []string{"a", "b", "c"}[random.IntN(3):] {
				n.locks = append(n.locks, lock{table, random.IntN(3) == 0})
			}
			tasks = append(tasks, n)
		}
		random.Shuffle(len(tasks), func(i, j int) { tasks[i], tasks[j] = tasks[j], tasks[i] })
		q := newQueue(slices.Clone(tasks))
		done, together := map[int]bool{}, 0
		var running []task
		for len(done) < len(tasks) {
			next, ok, more := q.next()
			if ok {
				for _, n := range next.entry.Needs {
					if n != next.entry.ID && !done[n] {
						t.Fatalf("seed %d: %d before %d", seed, next.entry.ID, n)
					}
				}
				for _, other := range running {
					if conflict(next, other) {
						t.Fatalf("seed %d: %d beside %d", seed, next.entry.ID, other.entry.ID)
					}
				}
				running = append(running, next)
				together = max(together, len(running))
			}
			if len(running) == 0 && !ok {
				t.Fatalf("seed %d: stuck, more %v", seed, more)
			}
			if !ok || random.IntN(2) == 0 {
				i := random.IntN(len(running))
				q.finish(running[i])
				done[running[i].entry.ID] = true
				running = slices.Delete(running, i, i+1)
			}
		}
		if together < 2 {
			t.Errorf("seed %d: never two at once", seed)
		}
		if _, ok, more := q.next(); ok || more {
			t.Errorf("seed %d: not empty", seed)
		}
	}
}

func conflict(a, b task) bool {
	for _, x := range a.locks {
		for _, y := range b.locks {
			if x.table == y.table && (x.exclusive || y.exclusive) {
				return true
			}
		}
	}
	return false
}

func TestSettingsBetweenEntriesAreTakenOff(t *testing.T) {
	for body, want := range map[string][2]string{
		"CREATE TABLE a ();\n\n\nSET default_table_access_method = columnar;\n\n":                                                   {"CREATE TABLE a ();", "columnar"},
		"CREATE TABLE a ();\n\nSET default_tablespace = '';\n\nSET default_table_access_method = \"My AM\";\n":                      {"CREATE TABLE a ();", `"My AM"`},
		"X;\n\n-- Completed on 2026-11-23 06:51:57 UTC\n\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abcDEF1\n\n": {"X;", "heap"},
		"COMMENT ON TABLE a IS 'x\nSET default_table_access_method = a';\n":                                                         {"COMMENT ON TABLE a IS 'x\nSET default_table_access_method = a';", "heap"},
		"COMMENT ON TABLE a IS 'x\nSET default_tablespace = ''';\n":                                                                 {"COMMENT ON TABLE a IS 'x\nSET default_tablespace = ''';", "heap"},
		"SELECT $$\n-- Completed on $$;\n":                                                                                          {"SELECT $$\n-- Completed on $$;", "heap"},
		"":                                                                                                                          {"", "heap"},
	} {
		text, method := tableMethod(body, "heap")
		if text != want[0] || method != want[1] {
			t.Errorf("%q: %q, %s", body, text, method)
		}
	}
	if got := withMethod("CREATE TABLE a ();", "TABLE", "columnar"); got != "SET LOCAL default_table_access_method = columnar;\nCREATE TABLE a ();\nSET LOCAL default_table_access_method = heap;" {
		t.Errorf("got %s", got)
	}
}
