package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// walker makes up steps: schema changes and rows, some of them in transactions.
type walker struct {
	rng    *rand.Rand
	made   int // names given out
	tables []*walked
	// The numbers of the tables that the step under way is about, and of those that it reads.
	named, read map[int]bool
}

type walked struct {
	number  int      // stays when the name changes
	name    string   // with its schema
	key     string   // the name of its primary key, if it has one
	columns []string // besides id
	indexes []string
	view    string
}

func (w *walker) name(prefix string) string {
	w.made++
	return prefix + strconv.Itoa(w.made)
}

func (w *walker) table() *walked {
	t := w.tables[w.rng.IntN(len(w.tables))]
	w.named[t.number] = true
	return t
}

// fresh returns a table that is to be made.
func (w *walker) fresh(prefix string) *walked {
	t := &walked{name: "public." + w.name(prefix)}
	t.number = w.made
	w.tables, w.named[t.number] = append(w.tables, t), true
	return t
}

// statement returns the next step with the tables that it is about.
func (w *walker) statement() statement {
	w.named, w.read = map[int]bool{}, map[int]bool{}
	sql := w.step()
	return statement{sql: sql, tables: w.named, of: w.read}
}

// step returns the next step. What it says of a table that a transaction rolls
// back is undone by the caller, who takes a copy first.
func (w *walker) step() string {
	if len(w.tables) < 3 {
		return w.create()
	}
	t := w.table()
	switch w.rng.IntN(30) {
	case 0:
		return w.create()
	case 1:
		if len(w.tables) < 8 {
			return w.create()
		}
		w.tables = without(w.tables, t)
		return "DROP TABLE " + t.name + " CASCADE"
	case 2, 3:
		return w.addColumn(t)
	case 4:
		if len(t.columns) == 0 || t.view != "" {
			return w.addColumn(t)
		}
		c := t.columns[w.rng.IntN(len(t.columns))]
		t.columns, t.indexes = without(t.columns, c), nil
		return fmt.Sprintf("ALTER TABLE %s DROP COLUMN %s", t.name, c)
	case 5:
		old, bare := t.name, w.name("r")
		t.name = t.name[:strings.Index(t.name, ".")+1] + bare
		return fmt.Sprintf("ALTER TABLE %s RENAME TO %s", old, bare)
	case 6:
		i := w.name("x")
		t.indexes = append(t.indexes, t.name[:strings.Index(t.name, ".")+1]+i)
		return fmt.Sprintf("CREATE INDEX %s ON %s (id, (id %% 3))", i, t.name)
	case 7:
		if len(t.indexes) == 0 {
			return "COMMENT ON TABLE " + t.name + " IS '" + w.name("c") + "'"
		}
		i := t.indexes[0]
		t.indexes = t.indexes[1:]
		return "DROP INDEX " + i
	case 8:
		return w.as(t)
	case 9:
		if t.view != "" {
			v := t.view
			t.view = ""
			return "DROP VIEW " + v
		}
		t.view = w.name("v")
		return fmt.Sprintf("CREATE VIEW %s AS SELECT id FROM %s", t.view, t.name)
	case 10:
		if t.view != "" {
			return "GRANT SELECT ON " + t.name + " TO PUBLIC"
		}
		if t.key == "" {
			t.key = w.name("key")
			return fmt.Sprintf("DELETE FROM %[1]s a USING %[1]s b WHERE a.id = b.id AND a.ctid > b.ctid; ALTER TABLE %[1]s ADD CONSTRAINT %[2]s PRIMARY KEY (id)", t.name, t.key)
		}
		key := t.key
		t.key = ""
		return fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s", t.name, key)
	case 11:
		return "TRUNCATE " + t.name
	case 12:
		from, to := "public", "walk"
		if strings.HasPrefix(t.name, to) {
			from, to = to, from
		}
		for i, x := range t.indexes {
			t.indexes[i] = to + strings.TrimPrefix(x, from)
		}
		old := t.name
		t.name = to + strings.TrimPrefix(t.name, from)
		return fmt.Sprintf("ALTER TABLE %s SET SCHEMA %s", old, to)
	case 13:
		return fmt.Sprintf("DO $$ BEGIN EXECUTE 'COMMENT ON TABLE %[1]s IS ''%[2]s'''; ALTER TABLE %[1]s ALTER id SET DEFAULT %[3]d; END $$", t.name, w.name("d"), w.made)
	case 14:
		return w.again(t)
	case 15:
		return w.swap(t)
	case 16:
		if len(t.columns) == 0 || t.view != "" {
			return w.addColumn(t)
		}
		i := w.rng.IntN(len(t.columns))
		old := t.columns[i]
		t.columns[i] = w.name("n")
		return fmt.Sprintf("ALTER TABLE %s RENAME COLUMN %s TO %s", t.name, old, t.columns[i])
	case 17:
		if t.view != "" {
			return "REVOKE SELECT ON " + t.name + " FROM PUBLIC"
		}
		return fmt.Sprintf("ALTER TABLE %s ALTER id TYPE %s", t.name, []string{"int", "bigint", "numeric"}[w.rng.IntN(3)])
	}
	return w.rows(t)
}

// again makes a table of the same name and another shape, in one transaction.
func (w *walker) again(t *walked) string {
	old := t.name
	t.columns, t.indexes, t.view, t.key = []string{w.name("c")}, nil, "", ""
	return fmt.Sprintf("DO $$ BEGIN DROP TABLE %[1]s CASCADE; CREATE TABLE %[1]s (%[2]s text DEFAULT 'x', id int); INSERT INTO %[1]s (id) VALUES (1), (2), (3); END $$", old, t.columns[0])
}

// swap has two tables change their names, in one transaction.
func (w *walker) swap(t *walked) string {
	other := w.table()
	if other == t || other.view != "" || t.view != "" {
		return "COMMENT ON TABLE " + t.name + " IS NULL"
	}
	schema := func(t *walked) (string, string) { s, bare, _ := strings.Cut(t.name, "."); return s, bare }
	s1, bare1 := schema(t)
	s2, bare2 := schema(other)
	if s1 != s2 {
		return "COMMENT ON TABLE " + t.name + " IS NULL"
	}
	t.name, other.name = s1+"."+bare2, s1+"."+bare1
	return fmt.Sprintf("DO $$ BEGIN INSERT INTO %[1]s.%[2]s (id) VALUES (%[4]d); ALTER TABLE %[1]s.%[2]s RENAME TO between_names; ALTER TABLE %[1]s.%[3]s RENAME TO %[2]s; ALTER TABLE %[1]s.between_names RENAME TO %[3]s; INSERT INTO %[1]s.%[2]s (id) VALUES (%[5]d); END $$",
		s1, bare1, bare2, w.number(), w.number())
}

// number returns a number that no row has.
func (w *walker) number() int {
	w.made++
	return w.made * 1000
}

func (w *walker) create() string {
	t := w.fresh("t")
	key := ""
	if w.rng.IntN(3) > 0 {
		t.key = w.name("key")
		key = " CONSTRAINT " + t.key + " PRIMARY KEY"
	}
	return fmt.Sprintf("CREATE TABLE %s (id int%s)", t.name, key)
}

func (w *walker) as(t *walked) string {
	delete(w.named, t.number)
	w.read[t.number] = true
	n := w.fresh("s")
	n.columns = append([]string{}, t.columns...)
	if w.rng.IntN(2) == 0 {
		return fmt.Sprintf("SELECT * INTO %s FROM %s LIMIT 30", n.name, t.name)
	}
	return fmt.Sprintf("CREATE TABLE %s AS SELECT * FROM %s LIMIT 30", n.name, t.name)
}

func (w *walker) addColumn(t *walked) string {
	c := w.name("c")
	t.columns = append(t.columns, c)
	kinds := []string{"text", "int DEFAULT 5", "timestamptz DEFAULT now()", "float8 DEFAULT random()", "text DEFAULT md5(random()::text)", "bigserial", "numeric(9,2) NOT NULL DEFAULT 1.5"}
	return fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s %s", t.name, c, kinds[w.rng.IntN(len(kinds))])
}

func (w *walker) rows(t *walked) string {
	switch w.rng.IntN(4) {
	case 0:
		return fmt.Sprintf("UPDATE %s SET id = -id WHERE id %% 4 = 1 AND -id NOT IN (SELECT id FROM %s)", t.name, t.name)
	case 1:
		return fmt.Sprintf("DELETE FROM %s WHERE id %% 7 = %d", t.name, w.rng.IntN(7))
	}
	w.made++
	return fmt.Sprintf("INSERT INTO %s (id) SELECT %d + i FROM generate_series(1, %d) i", t.name, w.made*1000, 1+w.rng.IntN(40))
}

func without[T comparable](list []T, gone T) []T {
	var kept []T
	for _, x := range list {
		if x != gone {
			kept = append(kept, x)
		}
	}
	return kept
}

func (w *walker) copy() []*walked {
	var list []*walked
	for _, t := range w.tables {
		c := *t
		c.columns, c.indexes = append([]string{}, t.columns...), append([]string{}, t.indexes...)
		list = append(list, &c)
	}
	return list
}

// next returns a step, or a transaction of some.
func (w *walker) next() action {
	if w.rng.IntN(4) > 0 {
		return action{sql: []statement{w.statement()}}
	}
	before := w.copy()
	a := action{end: "COMMIT"}
	for range 2 + w.rng.IntN(4) {
		a.sql = append(a.sql, w.statement())
	}
	if w.rng.IntN(4) == 0 {
		w.tables, a.end = before, "ROLLBACK"
	}
	return a
}

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	v := os.Getenv(variable)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// killings says before which steps which agent (0 or 1) is killed: twice each, and
// then as chance has it.
func killings(rng *rand.Rand, steps int) map[int]int {
	kills := map[int]int{}
	for i := range steps {
		if rng.IntN(60) == 0 {
			kills[i] = rng.IntN(2)
		}
	}
	for i := range 4 {
		kills[i*steps/4+rng.IntN(steps/4)] = i % 2
	}
	return kills
}

// A random walk of schema changes and rows, with both agents killed on the way, ends
// equal. TWINSPAN_WALK is its length, TWINSPAN_WALK_SEED makes it again: a shorter
// walk of the same seed is a prefix of a longer, but for the kills. One that fails is
// made smaller, and what is left of it printed as SQL.
func TestWalkOfSchemaChanges(t *testing.T) {
	t.Parallel()
	steps := int(number(t, "TWINSPAN_WALK", 80))
	seed := number(t, "TWINSPAN_WALK_SEED", pgtest.Seed())
	t.Logf("TWINSPAN_WALK=%d TWINSPAN_WALK_SEED=%d", steps, seed)
	replay := &replay{pair: linktest.New(t, linktest.Options{})}
	r := replay.begin(t)
	w := &walker{rng: rand.New(rand.NewPCG(seed, 1))}
	kills := killings(rand.New(rand.NewPCG(seed, 2)), steps)
	var taken []action
	var failed *mishap
	for i := 0; i < steps && failed == nil; i++ {
		next := w.next()
		taken = append(taken, next)
		failed = r.take(t, next)
		if which, due := kills[i]; due && failed == nil {
			kill := action{kill: []string{"a", "b"}[which]}
			taken = append(taken, kill)
			failed = r.take(t, kill)
		}
		if failed == nil && (i%100 == 99 || i == steps-1) {
			failed = r.compare(t, linktest.Patience)
		}
	}
	if failed != nil {
		t.Errorf("after %d steps: %v", len(taken), failed)
		t.Log(replay.reduce(t, taken, failed))
	}
}

// A schema change that a reader of the twin stands in the way of is shown, and
// made when the reader is gone.
func TestSchemaChangeWaitsForReaders(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "waits")
	a := p.A.Server.DSN("waits")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "waits", "waits")
	p.WaitPhase(t, "waits", api.Replicating)
	reader := pgtest.Conn(t, p.B.Server.DSN("waits"))
	if _, err := reader.Exec(t.Context(), `BEGIN; SELECT count(*) FROM t`); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, a, `BEGIN; INSERT INTO t VALUES (1); ALTER TABLE t ADD v int; INSERT INTO t VALUES (2, 2); COMMIT`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.A.Client.Link(t.Context(), "waits")
		if err != nil {
			return err
		}
		for _, problem := range l.Problems {
			if problem.Code == "schema_change_waits" && problem.Subject == "public.t" && problem.Hint != "" {
				return nil
			}
		}
		return fmt.Errorf("problems %+v", l.Problems)
	})
	if _, err := reader.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	sameStructure(t, p, "waits", "waits")
	l, err := p.B.Client.Link(t.Context(), "waits")
	if err != nil || len(l.Problems) > 0 {
		t.Errorf("problems remain: %+v, %v", l.Problems, err)
	}
}

// Agents and the secondary's server are killed while schema changes cross: each is
// made once.
func TestSchemaChangesSurviveKills(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerB: []pgtest.Option{pgtest.WithSetting("fsync", "on")}})
	p.A.Server.CreateDatabase(t, "kills")
	a := p.A.Server.DSN("kills")
	pgtest.Exec(t, a, `CREATE TABLE counted (id serial PRIMARY KEY, n int)`)
	p.Create(t, "kills", "kills")
	p.WaitPhase(t, "kills", api.Replicating)
	const rounds = 20
	done := make(chan error, 1)
	go func() {
		conn := pgtest.Conn(t, a)
		for i := range rounds {
			create := fmt.Sprintf(`BEGIN; CREATE TABLE k%[1]d AS SELECT i, random() AS r FROM generate_series(1, 300) i; ALTER TABLE k%[1]d ADD u uuid DEFAULT gen_random_uuid();
				INSERT INTO counted (n) VALUES (%[1]d); ALTER TABLE counted ADD c%[1]d int DEFAULT %[1]d; COMMIT`, i)
			for _, sql := range []string{create, fmt.Sprintf(`CREATE INDEX CONCURRENTLY ON k%d (i)`, i)} {
				if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
					done <- err
					return
				}
			}
		}
		done <- nil
	}()
	for _, kill := range []func(){
		func() { p.B.Kill(); p.B.Start() }, func() { p.A.Kill(); p.A.Start() },
		func() { p.B.Server.Kill(); p.B.Server.Restart() }, func() { p.B.Kill(); p.B.Start() },
	} {
		pause(t, 300*time.Millisecond)
		kill()
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	sameStructure(t, p, "kills", "kills")
}
