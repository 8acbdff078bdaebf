package test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// What making a failed walk smaller may cost.
const (
	replayTries    = 80
	replayPatience = 30 * time.Second // of one try
	replayTime     = 6 * time.Minute  // of all
)

// action is a step of a walk.
type action struct {
	sql  []statement
	end  string // COMMIT or ROLLBACK, when it is a transaction
	kill string // instead: the side whose agent is killed
}

// statement is SQL, perhaps of several statements, with the numbers of the tables
// that it is about, and of those that it only reads.
type statement struct {
	sql        string
	tables, of map[int]bool
}

func (a action) String() string {
	if a.kill != "" {
		return "-- kill -9 of agent " + a.kill
	}
	var list []string
	for _, s := range a.sql {
		list = append(list, s.sql)
	}
	if a.end != "" {
		list = append(append([]string{"BEGIN"}, list...), a.end)
	}
	return strings.Join(list, "; ") + ";"
}

// about reduces a walk to what its last step depends on: from its end on, what is
// about the same tables, and about those that these were made of or changed with.
func about(list []action) []action {
	tables := map[int]bool{}
	for _, s := range list[len(list)-1].sql {
		maps.Copy(tables, s.tables)
	}
	var kept []action
	for _, a := range slices.Backward(list) {
		var sql []statement
		for _, s := range slices.Backward(a.sql) {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(s.tables)), func(n int) bool { return tables[n] }) {
				continue
			}
			maps.Copy(tables, s.tables)
			maps.Copy(tables, s.of)
			sql = append(sql, s)
		}
		if slices.Reverse(sql); len(sql) > 0 || a.kill != "" {
			a.sql = sql
			kept = append(kept, a)
		}
	}
	slices.Reverse(kept)
	return kept
}

// mishap is how a walk failed. A smaller one that fails with the same kind is taken
// for failing likewise.
type mishap struct {
	kind string
	err  error
}

func (m *mishap) String() string { return m.kind + ": " + m.err.Error() }

// replay takes walks, each on a database of its own, between the same servers.
type replay struct {
	pair  *linktest.Pair
	walks int
}

// walking is a walk under way.
type walking struct {
	pair *linktest.Pair
	name string // of the database and the link
	conn *pgx.Conn
}

func (r *replay) begin(t *testing.T) *walking {
	t.Helper()
	r.walks++
	w := &walking{pair: r.pair, name: fmt.Sprintf("walk%d", r.walks)}
	r.pair.A.Server.CreateDatabase(t, w.name)
	dsn := r.pair.A.Server.DSN(w.name)
	pgtest.Exec(t, dsn, `CREATE SCHEMA walk`)
	r.pair.Create(t, w.name, w.name)
	r.pair.WaitPhase(t, w.name, api.Replicating)
	w.conn = pgtest.Conn(t, dsn)
	return w
}

// take takes a step. A statement that fails undoes its transaction.
func (w *walking) take(t *testing.T, a action) *mishap {
	t.Helper()
	if a.kill != "" {
		side := map[string]*linktest.Side{"a": w.pair.A, "b": w.pair.B}[a.kill]
		side.Kill()
		side.Start()
		return nil
	}
	_, err := w.conn.PgConn().Exec(t.Context(), a.String()).ReadAll()
	if err == nil {
		return nil
	}
	if w.conn.PgConn().TxStatus() != 'I' {
		if _, undo := w.conn.PgConn().Exec(t.Context(), "ROLLBACK").ReadAll(); undo != nil {
			t.Fatal(errors.Join(err, undo))
		}
	}
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	return &mishap{"a step fails on the primary with " + e.Code, fmt.Errorf("%w (%s): %s", err, e.Detail, a)}
}

// compare waits for the twin and compares it.
func (w *walking) compare(t *testing.T, patience time.Duration) *mishap {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := compareSides(ctx, w.pair, w.name, w.name)
	var broken brokenLink
	switch {
	case err == nil:
		return nil
	case errors.As(err, &broken) && len(broken.problems) > 0:
		return &mishap{"the link breaks with " + broken.problems[0].Code, err}
	case ctx.Err() != nil:
		return &mishap{"the twin does not come", err}
	}
	return &mishap{"the sides differ", err}
}

// again takes a walk once more and says whether it fails in a way, and with which of
// its steps: those that the primary does not take, for they need what was left out,
// are none.
func (r *replay) again(t *testing.T, list []action, like *mishap) (kept []action, fails bool) {
	t.Helper()
	w := r.begin(t)
	defer func() {
		w.conn.Close(context.Background())
		if _, err := r.pair.A.Client.DeleteLink(t.Context(), w.name, false); err != nil {
			t.Logf("delete link %s: %v", w.name, err)
		}
	}()
	for _, a := range list {
		switch m := w.take(t, a); {
		case m == nil:
			kept = append(kept, a)
		case m.kind == like.kind:
			return append(kept, a), true
		}
	}
	m := w.compare(t, replayPatience)
	return kept, m != nil && m.kind == like.kind
}

// reducing is a walk that failed while it is made smaller.
type reducing struct {
	*replay
	like  *mishap
	end   time.Time // when it is enough
	tries int
}

func (r *reducing) try(t *testing.T, list []action) ([]action, bool) {
	t.Helper()
	if r.tries >= replayTries || time.Now().After(r.end) {
		return nil, false
	}
	r.tries++
	return r.again(t, list, r.like)
}

// reduce makes a walk that failed smaller: kills first, then what comes after the step
// that matters and what else is in its transaction, other tables, other steps, and at
// last what is in other transactions. It returns a report
// that reproduces the failure.
func (r *replay) reduce(t *testing.T, taken []action, like *mishap) string {
	t.Helper()
	x := &reducing{replay: r, like: like, end: time.Now().Add(replayTime)}
	// Who is stopped by the deadline of all tests reports nothing.
	if deadline, ok := t.Deadline(); ok && deadline.Add(-time.Minute).Before(x.end) {
		x.end = deadline.Add(-time.Minute)
	}
	calm := slices.DeleteFunc(slices.Clone(taken), func(a action) bool { return a.kill != "" })
	list, fails := x.try(t, calm)
	if !fails {
		if list, fails = x.try(t, taken); !fails {
			return "it does not fail so again; the whole walk:\n" + script(taken)
		}
	}
	list = x.withoutTail(t, list)
	list = x.withoutParts(t, list, len(list)-1)
	if kept, fails := x.try(t, about(list)); fails {
		list = kept
	}
	list = shrink(list, replayTries, func(part []action) ([]action, bool) { return x.try(t, part) })
	for i := range list {
		list = x.withoutParts(t, list, i)
	}
	return fmt.Sprintf("%d of its %d steps are enough, found in %d tries; between two databases that are linked:\n%s", len(list), len(taken), x.tries, script(list))
}

// withoutTail halves its way to the shortest beginning that fails.
func (r *reducing) withoutTail(t *testing.T, list []action) []action {
	t.Helper()
	for enough, few := len(list), 0; few < enough-1; {
		middle := (few + enough) / 2
		if kept, fails := r.try(t, list[:middle]); fails {
			list, enough = kept, len(kept)
		} else {
			few = middle
		}
	}
	return list
}

// withoutParts takes statements out of a transaction, and the transaction away.
func (r *reducing) withoutParts(t *testing.T, list []action, i int) []action {
	t.Helper()
	with := func(inner []statement, end string) []action {
		changed := slices.Clone(list)
		changed[i].sql, changed[i].end = inner, end
		return changed
	}
	end := list[i].end
	if len(list[i].sql) > 1 {
		list = with(shrink(list[i].sql, replayTries, func(part []statement) ([]statement, bool) {
			kept, fails := r.try(t, with(part, end))
			return part, fails && len(kept) == len(list)
		}), end)
	}
	if end != "" {
		if kept, fails := r.try(t, with(list[i].sql, "")); fails && len(kept) == len(list) {
			return kept
		}
	}
	return list
}

func script(list []action) string {
	lines := []string{"CREATE SCHEMA walk;"}
	for _, a := range list {
		lines = append(lines, a.String())
	}
	return strings.Join(lines, "\n")
}
