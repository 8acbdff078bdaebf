package largeobject

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// worker brings ranges over one session of the twin.
type worker struct {
	target *Target
	conn   *pgx.Conn
	pass   pass
	roles  *roleMaker
	sum    *counted
}

// step is what is to be done with one object.
type step struct {
	oid   uint32
	there bool  // on the primary; otherwise it is removed
	here  bool  // on the twin
	pages int64 // on the primary, at most
}

// bring makes a range of the twin like the primary's.
func (w *worker) bring(ctx context.Context, s span) error {
	list, err := w.target.Remote.List(ctx, ListRequest{After: s.after, Upto: s.upto, Since: w.pass.from})
	if err != nil {
		return err
	}
	here, err := w.here(ctx, s)
	if err != nil {
		return err
	}
	steps := steps(list, here)
	for {
		n := batchOf(steps)
		done := s.upto
		if n < len(steps) {
			done = steps[n-1].oid
		}
		if err := w.batch(ctx, s, steps[:n], done); err != nil {
			return err
		}
		steps = steps[n:]
		if s.after = done; done == s.upto {
			break
		}
	}
	seen := w.sum.seen.Add(int64(len(list)))
	if w.target.Progress != nil {
		w.target.Progress(min(seen, w.sum.total), w.sum.total)
	}
	return nil
}

// here lists the twin's objects of a range, with the MD5 of their comments.
func (w *worker) here(ctx context.Context, s span) (map[uint32]string, error) {
	rows, err := w.conn.Query(ctx, `SELECT m.oid, coalesce(pg_catalog.md5(d.description), '') FROM pg_catalog.pg_largeobject_metadata m
		LEFT JOIN pg_catalog.pg_description d ON d.objoid = m.oid AND d.classoid = 2613
		WHERE m.oid > $1::bigint::oid AND m.oid <= $2::bigint::oid`, int64(s.after), int64(s.upto))
	if err != nil {
		return nil, pg.Classify(err, "list the twin's large objects")
	}
	here := map[uint32]string{}
	var oid uint32
	var sum string
	_, err = pgx.ForEachRow(rows, []any{&oid, &sum}, func() error {
		here[oid] = sum
		return nil
	})
	return here, pg.Classify(err, "list the twin's large objects")
}

// steps compares the two sides of a range, in the order of object ids. Consumes here.
func steps(list []Entry, here map[uint32]string) []step {
	var all []step
	for _, e := range list {
		sum, have := here[e.OID]
		if e.Changed || !have || sum != e.Comment {
			all = append(all, step{oid: e.OID, there: true, here: have, pages: e.Pages})
		}
		delete(here, e.OID)
	}
	for oid := range here {
		all = append(all, step{oid: oid, here: true})
	}
	slices.SortFunc(all, func(a, b step) int { return cmp.Compare(a.oid, b.oid) })
	return all
}

// batchOf says how many of the first steps go into one transaction.
func batchOf(steps []step) int {
	var bytes int64
	for i, s := range steps {
		bytes += s.pages * pageSize
		if i == batchObjects || i > 0 && bytes > batchBytes {
			return i
		}
	}
	return len(steps)
}

// batch does some steps and records it, in one transaction: readers of the twin
// see an object as it was or as it is, and nothing in between.
func (w *worker) batch(ctx context.Context, s span, steps []step, done uint32) error {
	var remove, make []uint32
	for _, x := range steps {
		if x.here {
			remove = append(remove, x.oid)
		}
		if x.there {
			make = append(make, x.oid)
		}
	}
	copied, err := w.replace(ctx, remove, make, func(tx pgx.Tx) error { return advance(ctx, tx, w.target.Link, s, done) })
	if err != nil {
		return err
	}
	w.sum.copied.Add(int64(copied))
	w.sum.removed.Add(int64(len(steps) - len(make)))
	return nil
}

// replace removes objects and makes those that the primary has, in one transaction that ends with last.
func (w *worker) replace(ctx context.Context, remove, make []uint32, last func(pgx.Tx) error) (made int, err error) {
	var objects []Object
	if len(make) > 0 {
		if objects, err = w.target.Remote.Describe(ctx, make); err != nil {
			return 0, err
		}
		if err := w.roles.need(ctx, w.conn, objects); err != nil {
			return 0, err
		}
	}
	err = pg.InTx(ctx, w.conn, func(tx pgx.Tx) error {
		if err := unlink(ctx, tx, remove); err != nil {
			return err
		}
		if err := w.create(ctx, tx, objects); err != nil {
			return err
		}
		return last(tx)
	})
	return len(objects), pg.Classify(err, "bring large objects")
}

func unlink(ctx context.Context, tx pgx.Tx, oids []uint32) error {
	if len(oids) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `SELECT pg_catalog.count(pg_catalog.lo_unlink(oid)) FROM pg_catalog.pg_largeobject_metadata WHERE oid = ANY ($1::oid[])`, oids)
	return pg.Classify(err, "remove large objects")
}

// create makes objects with all that they are. Their pages are copied as they lie,
// so that an object with holes keeps them.
func (w *worker) create(ctx context.Context, tx pgx.Tx, objects []Object) error {
	if len(objects) == 0 {
		return nil
	}
	owners := map[string][]uint32{}
	oids := make([]uint32, len(objects))
	for i, o := range objects {
		owners[o.Owner] = append(owners[o.Owner], o.OID)
		oids[i] = o.OID
	}
	for owner, owned := range owners {
		if _, err := tx.Exec(ctx, `SET LOCAL ROLE `+sqlname.Quote(owner)); err != nil {
			return pg.Classify(err, "become the owner of large objects")
		}
		if _, err := tx.Exec(ctx, `SELECT pg_catalog.count(pg_catalog.lo_create(oid)) FROM pg_catalog.unnest($1::oid[]) AS oid`, owned); err != nil {
			return pg.Classify(err, "create large objects")
		}
	}
	if _, err := tx.Exec(ctx, `RESET ROLE`); err != nil {
		return pg.Classify(err, "create large objects")
	}
	if err := w.copy(ctx, tx, oids); err != nil {
		return err
	}
	return dress(ctx, tx, objects, oids)
}

// copy streams the pages of objects into the twin's catalog.
func (w *worker) copy(ctx context.Context, tx pgx.Tx, oids []uint32) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, writer := io.Pipe()
	type answer struct {
		rows int64
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		buffered := bufio.NewWriterSize(counter{writer, &w.sum.bytes}, 1<<16)
		rows, err := w.target.Remote.Copy(ctx, oids, buffered)
		if err == nil {
			err = buffered.Flush()
		}
		writer.CloseWithError(err)
		answered <- answer{rows, err}
	}()
	var tag pgconn.CommandTag
	tag, err := tx.Conn().PgConn().CopyFrom(ctx, reader, `COPY pg_catalog.pg_largeobject (loid, pageno, data) FROM STDIN (FORMAT binary)`)
	reader.CloseWithError(errGone)
	if err != nil {
		cancel()
	}
	sent := <-answered
	state := pg.SQLState(err)
	switch {
	case sent.err != nil && problem.CodeOf(sent.err) != "cancelled" && (err == nil || state == "" || state == "57014" || state == "08P01"):
		return sent.err
	case err != nil:
		return pg.Classify(err, "copy into large objects")
	case tag.RowsAffected() != sent.rows:
		return problem.New(problem.Transient, "large_object_count", "%d pages of large objects were sent and %d arrived", sent.rows, tag.RowsAffected())
	}
	return nil
}

// errGone ends the sending of pages that nobody takes.
var errGone = problem.New(problem.Cancelled, "cancelled", "the twin takes no more pages")

type counter struct {
	w io.Writer
	n *atomic.Int64
}

func (c counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// dress gives new objects their grants and comments.
func dress(ctx context.Context, tx pgx.Tx, objects []Object, oids []uint32) error {
	// Version 18 has default privileges of large objects: what they gave is taken back.
	rows, err := tx.Query(ctx, grantsSQL+` WHERE m.oid = ANY ($1::oid[])`, oids)
	if err != nil {
		return pg.Classify(err, "read the grants of the twin's large objects")
	}
	given := map[uint32][]Grant{}
	var oid uint32
	var g Grant
	if _, err := pgx.ForEachRow(rows, []any{&oid, &g.Grantor, &g.Grantee, &g.Privilege, &g.Grantable}, func() error {
		given[oid] = append(given[oid], g)
		return nil
	}); err != nil {
		return pg.Classify(err, "read the grants of the twin's large objects")
	}
	var sql strings.Builder
	for _, o := range objects {
		grant(&sql, o, given[o.OID])
		if o.Comment != nil {
			fmt.Fprintf(&sql, "COMMENT ON LARGE OBJECT %d IS %s;", o.OID, sqlname.Literal(string(o.Comment)))
		}
	}
	if sql.Len() == 0 {
		return nil
	}
	return pg.Classify(tx.Conn().PgConn().Exec(ctx, sql.String()).Close(), "grant rights on large objects")
}

// grant writes the statements that give a new object its rights. Whoever grants
// needs the right first, so the owner's grants come before those of others.
func grant(sql *strings.Builder, o Object, given []Grant) {
	if o.Default && len(given) == 0 {
		return
	}
	fmt.Fprintf(sql, "REVOKE ALL ON LARGE OBJECT %d FROM PUBLIC, %s", o.OID, sqlname.Quote(o.Owner))
	for _, g := range given {
		if g.Grantee != "" && g.Grantee != o.Owner {
			sql.WriteString(", " + sqlname.Quote(g.Grantee))
		}
	}
	sql.WriteString(";")
	left := slices.Clone(o.Grants)
	if o.Default {
		left = []Grant{{o.Owner, o.Owner, "SELECT", false}, {o.Owner, o.Owner, "UPDATE", false}}
	}
	may := map[[2]string]bool{{o.Owner, "SELECT"}: true, {o.Owner, "UPDATE"}: true}
	for len(left) > 0 {
		rest := left[:0:0]
		for _, g := range left {
			if !may[[2]string{g.Grantor, g.Privilege}] {
				rest = append(rest, g)
				continue
			}
			if g.Grantable {
				may[[2]string{g.Grantee, g.Privilege}] = true
			}
			g.write(sql, o)
		}
		if len(rest) == len(left) {
			return // a chain that begins nowhere: nobody could give these
		}
		left = rest
	}
}

func (g Grant) write(sql *strings.Builder, o Object) {
	grantee, option := "PUBLIC", ""
	if g.Grantee != "" {
		grantee = sqlname.Quote(g.Grantee)
	}
	if g.Grantable {
		option = " WITH GRANT OPTION"
	}
	if g.Grantor != o.Owner {
		fmt.Fprintf(sql, "SET LOCAL ROLE %s;", sqlname.Quote(g.Grantor))
	}
	fmt.Fprintf(sql, "GRANT %s ON LARGE OBJECT %d TO %s%s;", g.Privilege, o.OID, grantee, option)
	if g.Grantor != o.Owner {
		sql.WriteString("RESET ROLE;")
	}
}
