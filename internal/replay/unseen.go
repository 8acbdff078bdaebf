package replay

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/ddl"
	"github.com/twinspan/twinspan/internal/drift"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/verify"
)

// MethodUnseen asks the primary what makes a table or materialized view that was made there without firing an
// event trigger, as EXPLAIN ANALYZE CREATE TABLE AS does.
const MethodUnseen = "schema.unseen"

// UnseenRequest names the relation: a table as the stream describes it, or whatever an object
// of a schema change is or belongs to. Names are in the encoding of the primary's database.
type UnseenRequest struct {
	side.Reference
	OID     uint32               `json:"oid,omitempty"`
	XID     uint32               `json:"xid,omitempty"` // of the transaction whose rows or command name it
	Schema  []byte               `json:"schema,omitempty"`
	Name    []byte               `json:"name,omitempty"`
	Columns []apply.UnseenColumn `json:"columns,omitempty"`
	Object  []byte               `json:"object,omitempty"` // its identity, where OID is 0
	Whole   bool                 `json:"whole,omitempty"`  // as it is now, with what belongs to it
	Bare    bool                 `json:"bare,omitempty"`   // it had no replica identity at that place of the stream
	List    bool                 `json:"list,omitempty"`   // which relations there are
}

// UnseenAnswer is the change that makes it: the payload of a signal; nil where the relation is gone.
type UnseenAnswer struct {
	Change json.RawMessage `json:"change"`
	// Seen says that a command has made the table, so the twin lacks it, and perhaps rows, for another reason.
	Seen bool         `json:"seen"`
	List []UnseenName `json:"list,omitempty"`
}

// UnseenName names a relation, in the encoding of the primary's database.
type UnseenName struct {
	Identity []byte `json:"identity"`
	Name     []byte `json:"name"` // without its schema
}

// unseenSQL says whether no event trigger saw a table made: it has no replica identity, which any other has got, or had none ($3)
// though it could, or the transaction that made it is the one that the secondary just reads ($2), or a part of that.
const unseenSQL = `SELECT EXISTS (SELECT FROM twinspan.without_identity(ARRAY[$1::oid])) OR $2::bigint <> 0 AND EXISTS (
	SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1::oid AND a.attnum = -1 AND (a.xmin::text::bigint - $2::bigint + 4294967296) % 4294967296 < 2147483648)
	OR $3::bool AND NOT EXISTS (SELECT FROM twinspan.identity i WHERE i.oid = $1::oid AND i.chosen = '-')
	OR NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = $1::oid AND c.relkind <> 'm')`

// perhapsUnseenSQL lists the relations, made by then, that unseenSQL may speak of, and those that can be made without
// their rows.
const perhapsUnseenSQL = `SELECT pg_catalog.convert_to(pg_catalog.format('%I.%I', n.nspname, c.relname), e.name), pg_catalog.convert_to(c.relname, e.name)
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = -1
	CROSS JOIN (SELECT pg_catalog.getdatabaseencoding()::name AS name) e
	WHERE n.nspname NOT IN ('twinspan', 'pg_catalog', 'information_schema') AND (c.relkind = 'm' OR c.relkind = 'r' AND c.relpersistence <> 't')
		AND ($1::bigint - a.xmin::text::bigint + 4294967296) % 4294967296 < 2147483648
	ORDER BY c.oid`

// HandleUnseen answers the secondary. The table gets the replica identity that its making did not give it: until then
// the server refuses its UPDATE and DELETE.
func (p *Replayer) HandleUnseen(ctx context.Context, request UnseenRequest, s *peer.Stream) error {
	return p.service.Answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) {
		var answer UnseenAnswer
		err := p.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			// Without event triggers no command is seen: what the twin lacks is an ordinary difference.
			var captured bool
			if err := conn.QueryRow(ctx, `SELECT pg_catalog.to_regprocedure('twinspan.made_unseen(oid,json,boolean)') IS NOT NULL`).Scan(&captured); err != nil || !captured {
				answer.Seen = err == nil
				return pg.Classify(err, "look whether schema changes are captured")
			}
			if request.List {
				rows, err := conn.Query(ctx, perhapsUnseenSQL, int64(request.XID))
				if err == nil {
					answer.List, err = pgx.CollectRows(rows, pgx.RowToStructByPos[UnseenName])
				}
				return pg.Classify(err, "list relations")
			}
			oid := request.OID
			if oid == 0 {
				err := conn.QueryRow(ctx, `SELECT coalesce(twinspan.relation_of(pg_catalog.convert_from($1, pg_catalog.getdatabaseencoding()::name)), 0::oid)`, request.Object).Scan(&oid)
				if err != nil {
					return pg.Classify(err, "look for the relation of an object")
				}
			}
			var shape any // nil where the stream has not described it
			if len(request.Columns) > 0 || len(request.Name) > 0 {
				text, err := json.Marshal(request)
				if err != nil {
					return problem.Wrap(err, problem.Internal, "stream_corrupt", "describe a table")
				}
				shape = string(text)
			}
			var unseen bool
			if err := conn.QueryRow(ctx, unseenSQL, oid, int64(request.XID), request.Bare).Scan(&unseen); err != nil {
				return pg.Classify(err, "look for a table that no event trigger saw")
			}
			answer.Seen = !unseen
			err := pg.InTx(ctx, conn, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '2s'`); err != nil {
					return pg.Classify(err, "prepare a look at a table")
				}
				_, err := tx.Exec(ctx, `SELECT twinspan.keep_identity(c.oid, false), twinspan.watch_truncate(c.oid) FROM pg_catalog.pg_class c WHERE c.oid = $1 AND c.relkind = 'r' AND c.relpersistence = 'p'`, oid)
				return pg.Classify(err, "set the replica identity of a table")
			})
			if err != nil {
				return err
			}
			var exists bool
			err = conn.QueryRow(ctx, `SELECT twinspan.made_unseen($1::oid, $2::text::json, $3)::text, EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = $1::oid)`, oid, shape, request.Whole).Scan(&answer.Change, &exists)
			answer.Seen = answer.Seen || exists && answer.Change == nil // it is no plain table any more
			return pg.Classify(err, "describe a table that no event trigger saw")
		})
		return answer, err
	})
}

// askUnseen asks the primary about relations that no event trigger saw.
func (p *Replayer) askUnseen(ctx context.Context, request UnseenRequest) (UnseenAnswer, error) {
	r := p.side.Record()
	request.Reference = side.ReferenceOf(r)
	return side.Ask[UnseenAnswer](ctx, p.side, MethodUnseen, request)
}

// unseenChange asks the primary for what makes a relation; nil where that is gone. seen is as in UnseenAnswer.
func (p *Replayer) unseenChange(ctx context.Context, request UnseenRequest) (change *ddl.Change, seen bool, err error) {
	answer, err := p.askUnseen(ctx, request)
	if err != nil || len(answer.Change) == 0 || string(answer.Change) == "null" {
		return nil, answer.Seen, err
	}
	change, err = ddl.Parse(answer.Change)
	return change, answer.Seen, err
}

// Unseen makes a table of which the stream has rows and that no command has made.
func (p *Replayer) Unseen(ctx context.Context, u apply.Unseen) (script *apply.Script, seen bool, err error) {
	change, seen, err := p.unseenChange(ctx, UnseenRequest{OID: u.OID, XID: u.XID, Schema: u.Schema, Name: u.Name, Columns: u.Columns, Bare: u.Bare})
	if err != nil || seen || change == nil {
		return nil, seen, err
	}
	if err := p.noteUnseen(ctx, change); err != nil {
		return nil, false, err
	}
	script, err = p.script(ctx, change, u.At, u.Place, "")
	return script, false, err
}

// absent makes the relations that a change names and this side lacks, though no command made them. instead says that the
// change is done with that, or has nothing to be done to: what it is about is gone on the primary, too.
func (p *Replayer) absent(ctx context.Context, change *ddl.Change, xid uint32, said string, at lsn.LSN, place int) (list []*apply.Script, instead bool, err error) {
	if w := change.Whole; w != nil {
		made, err := p.makes(ctx, w, at, place)
		if err != nil || made != nil {
			return []*apply.Script{made}, w.Instead, err
		}
	}
	var objects [][]byte
	if len(change.Objects) > 0 && slices.Contains(onRelations, change.Tag) {
		objects = append(objects, []byte(change.Objects[0]))
	}
	for first := true; ; first = false {
		for _, o := range objects {
			have, err := p.hasRelation(ctx, o)
			if err != nil {
				return nil, false, err
			} else if have {
				continue
			}
			made, seen, err := p.unseenChange(ctx, UnseenRequest{XID: xid, Object: o})
			switch {
			case err != nil:
				return nil, false, err
			case made == nil && !seen && first:
				p.side.Log.Info("schema change passed over of what is gone on the primary", "tag", change.Tag, "subject", change.Subject(), "lsn", at)
				return nil, true, nil
			case made == nil, seen && made.Bytes > 0: // of another kind, or missing for another reason
				continue
			}
			script, err := p.makes(ctx, made, at, place)
			if err != nil {
				return nil, false, err
			} else if script != nil {
				list = append(list, script)
			}
		}
		if len(list) > 0 || !first {
			return list, false, nil
		}
		answer, err := p.askUnseen(ctx, UnseenRequest{XID: xid, List: true})
		if err != nil {
			return nil, false, err
		}
		objects = nil
		for _, n := range answer.List { // those that the server names
			if names(said, string(n.Name)) {
				objects = append(objects, n.Identity)
			}
		}
	}
}

// names says whether a message of the server names a relation: between quotes of its language, perhaps behind a schema.
func names(message, name string) bool {
	for rest := message; name != ""; {
		at := strings.Index(rest, name)
		if at < 0 {
			return false
		}
		before, _ := utf8.DecodeLastRuneInString(rest[:at])
		after, _ := utf8.DecodeRuneInString(rest[at+len(name):])
		if unicode.IsPunct(before) && unicode.IsPunct(after) && after != '.' {
			return true
		}
		rest = rest[at+1:]
	}
	return false
}

// makes returns the script of what makes a relation; nil where this side has that.
func (p *Replayer) makes(ctx context.Context, made *ddl.Change, at lsn.LSN, place int) (*apply.Script, error) {
	if len(made.Objects) == 0 {
		return nil, nil
	}
	have, err := p.hasRelation(ctx, []byte(made.Objects[0]))
	if err != nil || have {
		return nil, err
	}
	if err := p.noteUnseen(ctx, made); err != nil {
		return nil, err
	}
	script, err := p.script(ctx, made, at, place, "")
	if script != nil {
		script.Absent = nil
	}
	return script, err
}

// onRelations are the tags of commands whose object is a relation, a column of one or an index.
var onRelations = []string{"ALTER TABLE", "ALTER MATERIALIZED VIEW", "REFRESH MATERIALIZED VIEW", "CREATE INDEX", "ALTER INDEX", "CREATE VIEW", "COMMENT"}

// hasRelation says whether this side has the relation of an identity, as the stream names it. What is no such
// identity counts as there.
func (p *Replayer) hasRelation(ctx context.Context, identity []byte) (have bool, err error) {
	err = p.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT pg_catalog.cardinality(p) < 2 OR pg_catalog.to_regclass(CASE WHEN pg_catalog.cardinality(p) >= 2 THEN pg_catalog.format('%I.%I', p[1], p[2]) END) IS NOT NULL
			FROM pg_catalog.parse_ident(pg_catalog.convert_from($1, pg_catalog.getdatabaseencoding()::name), false) p`, identity).Scan(&have)
		if pg.SQLState(err) == "22023" {
			have, err = true, nil
		}
		return pg.Classify(err, "look for a table")
	})
	return have, err
}

// noteUnseen tells once that a relation was made for which there was no command.
func (p *Replayer) noteUnseen(ctx context.Context, change *ddl.Change) error {
	const code = "relation_made"
	if slices.ContainsFunc(p.side.Record().Notices, func(n catalog.Notice) bool { return n.Code == code && n.Subject == change.Subject() }) {
		return nil
	}
	p.side.Log.Info("relation made that no event trigger saw", "subject", change.Subject())
	return p.side.Note(ctx, []catalog.Notice{{At: time.Now().UTC(), Code: code, Subject: change.Subject(),
		Text: "it was made on the primary by a command that fires no event trigger (EXPLAIN ANALYZE CREATE TABLE AS), and here as the primary's catalogs have it"}})
}

// Make makes the tables without rows and the materialized views that the primary has got without an event, where
// nothing in the stream has named them since. It returns those that stop the link: what has rows is missing here for another reason.
func (p *Replayer) Make(ctx context.Context, list []verify.SchemaDifference) (refused []catalog.Drift, err error) {
	for _, d := range list {
		var object []byte
		err := p.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			err := conn.QueryRow(ctx, `SELECT pg_catalog.convert_to($1, pg_catalog.getdatabaseencoding()::name)`, d.Name).Scan(&object)
			return pg.Classify(err, "read the name of a table")
		})
		if err != nil {
			return nil, err
		}
		change, seen, err := p.unseenChange(ctx, UnseenRequest{Object: object, Whole: true})
		switch {
		case err != nil:
			return nil, err
		case change == nil && !seen: // gone meanwhile
			continue
		case change == nil, change.Tag == "CREATE TABLE" && change.Bytes > 0:
			refused = append(refused, drift.Of(d))
			continue
		}
		if err := p.makeAtOnce(ctx, change); err == nil {
			err = p.noteUnseen(ctx, change)
			if err != nil {
				return nil, err
			}
		} else if !side.Lasting(problem.As(err)) {
			return nil, err
		} else {
			p.side.Log.Warn("relation not made", "subject", d.Name, "err", err)
			refused = append(refused, drift.Of(d))
		}
	}
	return refused, nil
}

// makeAtOnce makes a relation while nothing is applied.
func (p *Replayer) makeAtOnce(ctx context.Context, change *ddl.Change) error {
	r := p.side.Record()
	script, err := p.script(ctx, change, 0, 0, "")
	if err != nil || script == nil {
		return err
	}
	conn, err := p.meets.RepairSession(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	m, err := p.meets.Meet(ctx, meet.SnapshotRequest{Reference: side.ReferenceOf(r), Workers: 1}, func(ctx context.Context, _ *meet.Meeting) error {
		return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			var have bool
			err := tx.QueryRow(ctx, `SELECT pg_catalog.to_regclass(pg_catalog.convert_from($1, pg_catalog.getdatabaseencoding()::name)) IS NOT NULL`, []byte(change.Subject())).Scan(&have)
			if err != nil || have {
				return pg.Classify(err, "look for a table")
			}
			for _, sql := range script.Statements {
				if err := tx.Conn().PgConn().Exec(ctx, sql).Close(); err != nil {
					return pg.Classify(err, "make "+change.Subject())
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	return m.Stream.Close()
}
