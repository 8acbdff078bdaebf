package apply

import (
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

// The commit of a few changes is sent behind them, before their replies are known. One
// that hits no row is not committed all the same, nor is anything after it.
func TestWhatHitsNoRowIsNotCommitted(t *testing.T) {
	for name, c := range map[string]struct {
		breaks, change, code string
	}{
		"update": {"DELETE FROM t WHERE id = 3", "UPDATE t SET v = 'y' WHERE id = 3", "row_missing"},
		"delete": {"DELETE FROM t WHERE id = 3", "DELETE FROM t WHERE id = 3", "row_missing"},
		"whole":  {"DELETE FROM bag WHERE a = 3", "DELETE FROM bag WHERE a = 3", "row_missing"},
		"insert": {"INSERT INTO t VALUES (9)", "INSERT INTO t VALUES (9)", "row_duplicate"},
		// The applier knows the table already, and that no trigger fires.
		"swallowed": {`CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no();
			ALTER TABLE t ENABLE ALWAYS TRIGGER no`, "INSERT INTO t VALUES (9)", "row_missing"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE bag (a int); ALTER TABLE bag REPLICA IDENTITY FULL;"+
				"INSERT INTO t VALUES (1), (2), (3); INSERT INTO bag VALUES (1), (3)")
			p.do("INSERT INTO t VALUES (4); UPDATE t SET v = 'x' WHERE id = 1; UPDATE bag SET a = 2 WHERE a = 1")
			until := p.position()
			p.do("BEGIN; INSERT INTO bag VALUES (7); " + c.change + "; COMMIT")
			p.do("INSERT INTO t VALUES (5)")
			tape := p.record(p.messages(), p.position(), nil)
			tape.single(p.position())
			tape.took = func(n int) {
				if n == 2 {
					pgtest.Exec(t, p.target, c.breaks)
				}
			}
			a := p.applier(p.position())
			err := a.Run(testContext(t), tape)
			if problem.KindOf(err) != problem.Diverged || code(err) != c.code {
				t.Fatalf("got %v", err)
			}
			if got := p.progress(); got > until {
				t.Errorf("the origin moved to %s, past %s", got, until)
			}
			if got := pgtest.Query(t, p.target, "SELECT (SELECT count(*) FROM bag WHERE a = 7), (SELECT count(*) FROM t WHERE id IN (4, 5))")[0]; got[0] != "0" || got[1] != "1" {
				t.Errorf("%s and %s rows are there", got[0], got[1])
			}
			if s := a.Status(); s.Fallbacks != 1 || s.Groups != 2 {
				t.Errorf("status is %+v", s)
			}
		})
	}
}
