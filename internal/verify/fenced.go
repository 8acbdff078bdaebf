package verify

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Planning a query is enough to run a user's function: those that call themselves
// immutable are folded in the predicates of indexes, in statistics and in constraints
// (plancat.c, get_relation_info). So the rows of a table are read with the rights of its
// owner, by a query that puts its answer into a temporary table of the session's.

// reader is a session that reads at the snapshot.
type reader struct {
	conn   *pgx.Conn
	dsn    *pg.DSN
	link   string
	fenced bool            // it can run queries with the rights of others
	made   map[string]bool // the owners who may write their answers
}

// open opens a session. Only a superuser can give a query the rights of another role;
// who is none has few of his own. The server must be of version 11 or later.
func (s *Snapshot) open(ctx context.Context) (*reader, error) {
	settings := map[string]string{"lock_timeout": fmt.Sprint(s.LockTimeout.Milliseconds()), "max_parallel_workers_per_gather": "0"}
	conn, err := s.DSN.Connect(ctx, pg.Session{Name: s.Link + "/verify", Settings: settings})
	if err != nil {
		return nil, err
	}
	r := &reader{conn: conn, dsn: s.DSN, link: s.Link, made: map[string]bool{}}
	err = conn.QueryRow(ctx, `SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user`).Scan(&r.fenced)
	if err != nil || !r.fenced {
		return r, pg.Classify(err, "open a session for reading")
	}
	conn.Close(ctx)
	// What it makes for itself must pass the gate and not be taken for a schema change.
	r.conn, err = s.DSN.Connect(ctx, pg.Session{Name: s.Link + "/verify", Settings: settings, Apply: true, Fenced: true})
	return r, err
}

// The temporary tables that answers are put into, by the shape of the query.
const (
	answerBlocks = "twinspan_blocks"
	answerList   = "twinspan_list"
	answerRows   = "twinspan_rows"
)

const answersSQL = `
CREATE TEMPORARY TABLE IF NOT EXISTS twinspan_blocks (block pg_catalog.int8, count pg_catalog.int8, sum1 pg_catalog.text, sum2 pg_catalog.text);
CREATE TEMPORARY TABLE IF NOT EXISTS twinspan_list (place pg_catalog.text, keys pg_catalog._text, h1 pg_catalog.int8, h2 pg_catalog.int8);
CREATE TEMPORARY TABLE IF NOT EXISTS twinspan_rows (keys pg_catalog._text, vals pg_catalog._text)`

// ready makes, outside of the transaction of the snapshot, what reading with the rights
// of the table's owner needs.
func (r *reader) ready(ctx context.Context, t *known) error {
	if !r.of(t) || r.made[t.owner] {
		return nil
	}
	err := pg.InTx(ctx, r.conn, func(tx pgx.Tx) error {
		statements := []string{answersSQL}
		for _, table := range []string{answerBlocks, answerList, answerRows} {
			statements = append(statements, "GRANT INSERT ON pg_temp."+table+" TO "+sqlname.Quote(t.owner))
		}
		for _, sql := range statements {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return pg.Classify(err, "prepare to read with the rights of role "+t.owner)
			}
		}
		return nil
	})
	r.made[t.owner] = err == nil
	return err
}

// of says whether a table is read with the rights of its owner.
func (r *reader) of(t *known) bool { return r.fenced && t != nil && t.owner != "" && !t.forced }

// query runs a query on a table at the snapshot; answer is the temporary table with the
// shape of its rows.
func (r *reader) query(ctx context.Context, t *known, answer, sql string) (pgx.Rows, error) {
	if !r.of(t) {
		if err := r.unfenced(ctx, t); err != nil {
			return nil, err
		}
		return r.conn.Query(ctx, sql)
	}
	if err := r.run(ctx, t, "INSERT INTO pg_temp."+answer+" "+sql); err != nil {
		return nil, err
	}
	return r.conn.Query(ctx, "SELECT * FROM pg_temp."+answer)
}

// copyTo writes the columns of the rows that a query finds, as COPY does.
func (r *reader) copyTo(ctx context.Context, t *known, columns []string, sql string, w io.Writer) error {
	if !r.of(t) {
		if err := r.unfenced(ctx, t); err != nil {
			return err
		}
		_, err := r.conn.PgConn().CopyTo(ctx, w, "COPY ("+sql+") TO STDOUT")
		return err
	}
	// Without data the query is not planned (createas.c, ExecCreateTableAs).
	make := "CREATE TEMPORARY TABLE twinspan_copied AS SELECT " + sqlname.Join(columns) + " FROM ONLY " + t.Name.SQL() + " WITH NO DATA; GRANT INSERT ON pg_temp.twinspan_copied TO " + sqlname.Quote(t.owner)
	if _, err := r.conn.PgConn().Exec(ctx, make).ReadAll(); err != nil {
		return err
	}
	if err := r.run(ctx, t, "INSERT INTO pg_temp.twinspan_copied "+sql); err != nil {
		return err
	}
	_, err := r.conn.PgConn().CopyTo(ctx, w, "COPY pg_temp.twinspan_copied TO STDOUT")
	return err
}

// run runs SQL with the rights of a table's owner. The function that does so is made in
// the transaction, for it is proved by what the transaction's snapshot sees.
func (r *reader) run(ctx context.Context, t *known, sql string) error {
	runner := rights.NewRunner(t.owner, nil)
	_, err := r.conn.PgConn().Exec(ctx, strings.Join(append(runner.Make(), runner.Run(sql)...), "; ")).ReadAll()
	if p := rights.Problem(err, t.owner, t.Name.String()); p != nil {
		return p
	}
	if state := pg.SQLState(err); state == "42501" {
		return problem.Wrap(pg.Classify(err, "read the table"), problem.Incompatible, "owner_may_not_read", "the owner of the table may not read it").On(t.Name.String()).
			WithHint("as a superuser, grant role %s what it lacks: USAGE on the schema, SELECT on the table and on what its indexes call; then verify again", t.owner)
	}
	return err
}

// unfenced allows a table to be read with the agent's own rights: there is nothing at it
// that could run. The lock keeps it so: whatever adds an index, statistics or a
// constraint waits for it; readers and writers do not. What is there is asked in another session,
// for queries at the snapshot see what was there then, and the planner sees what is there now.
func (r *reader) unfenced(ctx context.Context, t *known) error {
	if !r.fenced || t == nil || t.oid == 0 || t.owner == "" {
		return nil
	}
	if _, err := r.conn.Exec(ctx, "LOCK TABLE ONLY "+t.Name.SQL()+" IN SHARE UPDATE EXCLUSIVE MODE"); err != nil {
		return err
	}
	other, err := r.dsn.Connect(ctx, pg.Session{Name: r.link + "/verify"})
	if err != nil {
		return err
	}
	defer other.Close(context.WithoutCancel(ctx))
	var oid uint32
	if err := other.QueryRow(ctx, `SELECT coalesce(pg_catalog.to_regclass($1)::pg_catalog.oid, 0)`, t.Name.SQL()).Scan(&oid); err != nil {
		return pg.Classify(err, "look at "+t.Name.String())
	}
	now, err := rights.Of(ctx, other, []uint32{oid})
	if err != nil {
		return err
	}
	if oid != t.oid {
		return problem.New(problem.Transient, "table_changed", "it is another table by now").On(t.Name.String())
	}
	if now[t.oid].Code {
		return problem.New(problem.Incompatible, "row_security_hides_rows", "row security is forced on the table's owner, and functions of users run when it is read").On(t.Name.String()).
			WithHint("it is not compared; ALTER TABLE %s NO FORCE ROW LEVEL SECURITY lets it be", t.Name.SQL())
	}
	return nil
}
