package largeobject

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Source is the primary's half. Each call opens a session of its own.
type Source struct {
	DSN  *pg.DSN
	Name string // the link's name, for the names of sessions
	// Snapshot is an exported one, at which everything is read: for one pass that no other
	// follows. Without one each call reads what is there now.
	Snapshot string
}

func (s *Source) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := connect(ctx, s.DSN, pg.Session{Name: s.Name + "/objects", Settings: map[string]string{"lock_timeout": "1000"}})
	if err != nil || s.Snapshot == "" {
		return conn, err
	}
	_, err = conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	if err == nil {
		_, err = conn.Exec(ctx, "SET TRANSACTION SNAPSHOT "+sqlname.Literal(s.Snapshot))
	}
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		switch pg.SQLState(err) {
		case "22023", "55000", "42704":
			return nil, problem.Wrap(pg.Classify(err, "import"), problem.Transient, "session_lost", "the snapshot is gone")
		}
		return nil, pg.Classify(err, "read large objects at a snapshot")
	}
	return conn, nil
}

// connect opens a session whose text is UTF-8, except where the database's encoding
// has no conversion to it.
func connect(ctx context.Context, dsn *pg.DSN, s pg.Session) (*pgx.Conn, error) {
	conn, err := dsn.Connect(ctx, s)
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, `SELECT set_config('client_encoding', getdatabaseencoding(), false) WHERE getdatabaseencoding() IN ('SQL_ASCII', 'MULE_INTERNAL')`)
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, pg.Classify(err, "set up a session for large objects")
	}
	return conn, nil
}

// The catalogs by OID: pg_largeobject, pg_largeobject_metadata, pg_description.
// What the server counts of them tells cheaply that nothing happened.
const countersSQL = `SELECT CASE WHEN pg_catalog.current_setting('track_counts')::boolean THEN
	(SELECT pg_catalog.string_agg(pg_catalog.pg_stat_get_tuples_inserted(o) || '+' || pg_catalog.pg_stat_get_tuples_updated(o)
		|| '+' || pg_catalog.pg_stat_get_tuples_deleted(o), ' ' ORDER BY o) FROM pg_catalog.unnest('{2613,2995,2609}'::oid[]) AS o) ELSE '' END`

// farthest is how many transactions a pass may lie behind the next: beyond it,
// the age of a row is no longer told by its xmin.
const farthest = 1 << 31

// Plan begins a pass. Its Next is taken before anything is looked at, so that what
// commits meanwhile is looked at again by the next pass.
func (s *Source) Plan(ctx context.Context, r PlanRequest) (Plan, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return Plan{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	p := Plan{Since: r.Since}
	err = conn.QueryRow(ctx, `SELECT txid_snapshot_xmin(txid_current_snapshot()), current_setting('block_size')::int, (`+countersSQL+`)`).Scan(&p.Next, &p.Block, &p.Counters)
	if err != nil {
		return p, pg.Classify(err, "plan the large objects")
	}
	if p.Same = r.Since > 0 && r.Counters != "" && r.Counters == p.Counters; p.Same {
		return p, nil
	}
	if p.Next-p.Since >= farthest {
		p.Since = 0
	}
	rows, err := conn.Query(ctx, `SELECT oid, n FROM (SELECT oid, row_number() OVER (ORDER BY oid) AS n, count(*) OVER () AS all FROM pg_catalog.pg_largeobject_metadata) x
		WHERE n % $1 = 0 OR n = x.all ORDER BY n`, rangeObjects)
	if err != nil {
		return p, pg.Classify(err, "plan the large objects")
	}
	var oid uint32
	if _, err := pgx.ForEachRow(rows, []any{&oid, &p.Objects}, func() error {
		p.Bounds = append(p.Bounds, oid)
		return nil
	}); err != nil {
		return p, pg.Classify(err, "plan the large objects")
	}
	// The last range reaches to the end: what was removed or made there belongs to it.
	if len(p.Bounds) > 0 {
		p.Bounds = p.Bounds[:len(p.Bounds)-1]
	}
	p.Bounds = append(p.Bounds, lastOID)
	return p, nil
}

// young is a condition on a row's xmin: not older than a transaction. Raw numbers
// are compared around their circle; frozen rows keep theirs, and one that looks
// young after two thousand million transactions is copied for nothing.
func young(xmin string, since uint64) string {
	if since == 0 {
		return "true"
	}
	return fmt.Sprintf("(%s::text::bigint - %d + 4294967296) %% 4294967296 < 2147483648", xmin, uint32(since))
}

// List says what of a range there is, and what of it is younger than a pass. Each
// change of an object writes a row: of its pages, also when it is cut off
// (inv_api.c, inv_truncate), of its metadata, or of its comment. A comment that is
// taken away leaves none: for it, comments are compared.
func (s *Source) List(ctx context.Context, r ListRequest) ([]Entry, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `
		WITH p AS (SELECT loid, bool_or(`+young("xmin", r.Since)+`) AS young, max(pageno) + 1 AS pages FROM pg_catalog.pg_largeobject
		            WHERE loid > $1::bigint::oid AND loid <= $2::bigint::oid GROUP BY loid)
		SELECT m.oid, `+young("m.xmin", r.Since)+` OR coalesce(p.young, false), coalesce(p.pages, 0), coalesce(pg_catalog.md5(d.description), '')
		  FROM pg_catalog.pg_largeobject_metadata m LEFT JOIN p ON p.loid = m.oid
		  LEFT JOIN pg_catalog.pg_description d ON d.objoid = m.oid AND d.classoid = 2613
		 WHERE m.oid > $1::bigint::oid AND m.oid <= $2::bigint::oid ORDER BY m.oid`, int64(r.After), int64(r.Upto))
	if err != nil {
		return nil, pg.Classify(err, "list large objects")
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Entry])
	if pg.SQLState(err) == "42501" {
		// A role that may not read their pages sees whether there are any.
		var some bool
		asked := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata WHERE oid > $1::bigint::oid AND oid <= $2::bigint::oid)`, int64(r.After), int64(r.Upto)).Scan(&some)
		if asked == nil && !some {
			return nil, nil
		}
		return nil, problem.Wrap(err, problem.Unauthorised, "large_objects_unreadable", "list large objects").
			WithHint("as a superuser of the primary: GRANT SELECT ON pg_catalog.pg_largeobject TO %s", sqlname.Quote(s.DSN.User()))
	}
	return list, pg.Classify(err, "list large objects")
}

// Describe says what objects are besides their bytes. One that is gone is left out.
func (s *Source) Describe(ctx context.Context, oids []uint32) ([]Object, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `
		SELECT m.oid, pg_catalog.pg_get_userbyid(m.lomowner), m.lomacl IS NULL, pg_catalog.obj_description(m.oid, 'pg_largeobject')
		  FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = ANY ($1::oid[]) ORDER BY m.oid`, oids)
	if err != nil {
		return nil, pg.Classify(err, "describe large objects")
	}
	var list []Object
	at := map[uint32]int{}
	var o Object
	if _, err := pgx.ForEachRow(rows, []any{&o.OID, &o.Owner, &o.Default, &o.Comment}, func() error {
		at[o.OID] = len(list)
		list = append(list, o)
		o.Comment = nil
		return nil
	}); err != nil {
		return nil, pg.Classify(err, "describe large objects")
	}
	rows, err = conn.Query(ctx, grantsSQL+` WHERE m.oid = ANY ($1::oid[]) AND m.lomacl IS NOT NULL ORDER BY m.oid, a.n`, oids)
	if err != nil {
		return nil, pg.Classify(err, "read the grants of large objects")
	}
	var oid uint32
	var g Grant
	_, err = pgx.ForEachRow(rows, []any{&oid, &g.Grantor, &g.Grantee, &g.Privilege, &g.Grantable}, func() error {
		if i, known := at[oid]; known {
			list[i].Grants = append(list[i].Grants, g)
		}
		return nil
	})
	return list, pg.Classify(err, "read the grants of large objects")
}

const grantsSQL = `SELECT m.oid, pg_catalog.pg_get_userbyid(a.grantor), CASE WHEN a.grantee = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable
	FROM pg_catalog.pg_largeobject_metadata m, LATERAL pg_catalog.aclexplode(m.lomacl) WITH ORDINALITY AS a (grantor, grantee, privilege_type, is_grantable, n)`

// Copy writes the pages of objects as binary COPY data and returns their number.
func (s *Source) Copy(ctx context.Context, oids []uint32, w io.Writer) (int64, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var list strings.Builder
	for i, oid := range oids {
		if i > 0 {
			list.WriteByte(',')
		}
		fmt.Fprint(&list, oid)
	}
	tag, err := conn.PgConn().CopyTo(ctx, w, `COPY (SELECT loid, pageno, data FROM pg_catalog.pg_largeobject WHERE loid = ANY ('{`+list.String()+`}'::oid[])) TO STDOUT (FORMAT binary)`)
	return tag.RowsAffected(), pg.Classify(err, "copy large objects")
}
