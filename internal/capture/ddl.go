package capture

import (
	"context"
	_ "embed"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
)

//go:embed ddl.sql
var ddlSQL string

//go:embed objects.sql
var objectsSQL string

//go:embed folded.sql
var foldedSQL string

//go:embed rows.sql
var rowsSQL string

//go:embed text.sql
var textSQL string

//go:embed notes.sql
var notesSQL string

//go:embed stale.sql
var staleSQL string

// schemaTriggers are the event triggers that put schema changes into the stream.
// They fire in the order of their names, before those of users.
var schemaTriggers = [...]struct{ name, event, function string }{
	{"!twinspan_caller", "ddl_command_end", "twinspan.on_ddl_caller()"},
	{"!twinspan_caller_drop", "sql_drop", "twinspan.on_ddl_caller()"},
	{"!twinspan_capture", "ddl_command_end", "twinspan.on_ddl_capture()"},
	{"!twinspan_drop", "sql_drop", "twinspan.on_ddl_drop()"},
	{"!twinspan_rewrite", "table_rewrite", "twinspan.on_ddl_rewrite()"},
	{"!twinspan_start", "ddl_command_start WHEN TAG IN ('ALTER DOMAIN', 'ALTER EXTENSION', 'ALTER TABLE', 'CREATE EXTENSION', 'CREATE INDEX', 'CREATE MATERIALIZED VIEW', 'CREATE SCHEMA', 'GRANT', 'REFRESH MATERIALIZED VIEW', 'REVOKE')", "twinspan.on_ddl_start()"},
}

// schemaSQL makes the functions that put schema changes into the stream.
func schemaSQL() string { return textSQL + objectsSQL + foldedSQL + rowsSQL + ddlSQL }

// captureSchema makes what puts schema changes into the stream.
func captureSchema(ctx context.Context, conn *pgx.Conn) error {
	functions, err := planned(ctx, conn, schemaSQL())
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, functions+catalog.PrivateSQL); err != nil {
		return pg.Classify(err, "create the functions that capture schema changes")
	}
	for _, t := range schemaTriggers {
		if err := makeEventTrigger(ctx, conn, t.name, t.event, t.function); err != nil {
			return err
		}
	}
	return nil
}

// releaseSchema takes away what captureSchema made besides event triggers.
func releaseSchema(ctx context.Context, conn *pgx.Conn) error {
	// With the function goes the trigger on twinspan.link.
	_, err := conn.Exec(ctx, `DROP FUNCTION IF EXISTS twinspan.on_link_change() CASCADE; DROP FUNCTION IF EXISTS twinspan.refuse_stale(), twinspan.conflict(text), twinspan.touch(oid), twinspan.touch_first(oid, int, bigint), twinspan.touch_changed(), twinspan.touch_around(oid[]), twinspan.refuse_former_superuser(text), `+strings.Join(slices.Concat(schemaFunctions[:], formerFunctions[:]), ", ")+
		`; DROP TABLE IF EXISTS twinspan.twin_extension, twinspan.made_since, twinspan.note, twinspan.piece, twinspan.filled, twinspan.twin_format, twinspan.touched; DROP SEQUENCE IF EXISTS twinspan.place, twinspan.link_changed`)
	return pg.Classify(err, "drop the functions that capture schema changes")
}

// schemaFunctions are those that notes.sql, text.sql, ddl.sql and the others make.
var schemaFunctions = [...]string{
	"twinspan.bare(text, boolean)", "twinspan.bounds_of_elements(text, text)", "twinspan.capture_command(text, boolean, boolean)", "twinspan.capture_ddl(text, text, text, json)", "twinspan.capture_drop(text)", "twinspan.command_began()", "twinspan.ddl_text(text, text, boolean, boolean)", "twinspan.described(text, text, boolean, json, text[], text[], jsonb)", "twinspan.detached(text, text, text)",
	"twinspan.differing_rows(text)", "twinspan.fits(text, text)", "twinspan.folded(text, text)", "twinspan.folds_while_copied()", "twinspan.format()", "twinspan.goes_on(text)", "twinspan.granted()", "twinspan.immutable(pg_node_tree)", "twinspan.keep_names(name[])", "twinspan.left_invalid(text)", "twinspan.made_like(text, text, text)", "twinspan.made_since_copy(oid, oid)", "twinspan.made_unseen(oid, json, boolean)", "twinspan.mask(text, boolean)",
	"twinspan.missing_values(oid[])", "twinspan.momentary(text)", "twinspan.named_first(text, text)", "twinspan.named_index(text, text, text, text)", "twinspan.names_it(text, text)", "twinspan.note_called(text)", "twinspan.note_start(text)", "twinspan.noted(text)", "twinspan.on_ddl_caller()", "twinspan.on_ddl_capture()",
	"twinspan.on_ddl_drop()", "twinspan.on_ddl_rewrite()", "twinspan.on_ddl_start()", "twinspan.ordinary(text, boolean)", "twinspan.own(text, text, text)",
	"twinspan.part(text, integer, integer)", "twinspan.partition_bound(text, text)", "twinspan.pass_over(text, text, boolean)", "twinspan.pick(text, text, boolean, boolean, boolean)", "twinspan.portion(bytea, integer, integer)", "twinspan.raw(text)",
	"twinspan.relation_named(text, text)", "twinspan.relation_of(text)", "twinspan.refuse_ddl(text, text, text, text)", "twinspan.refuse_early(text)", "twinspan.refuse_effects(text, oid[])", "twinspan.refuse_here(text)", "twinspan.refuse_late(text)", "twinspan.refuse_temporary(text)", "twinspan.refuse_unwritable(text)", "twinspan.refuse_while_seeding(text, text, boolean)",
	"twinspan.resend(oid, text)", "twinspan.rows_changed()", "twinspan.run_own(text)", "twinspan.run_unseen(text)", "twinspan.says_moment(text, text)", "twinspan.send_rows(oid)", "twinspan.say(text, jsonb)", "twinspan.say_ddl(text, text, boolean, json, text[], text[], jsonb)", "twinspan.session_settings(text, text, text)", "twinspan.shared_library(text)", "twinspan.spend_note(text)",
	"twinspan.split(text, boolean, boolean)", "twinspan.table_parts(oid)", "twinspan.tables_of_script(text, bigint, boolean)", "twinspan.table_text(oid)", "twinspan.take_note(text, bigint, bigint, bigint)", "twinspan.temporary(oid, oid)", "twinspan.uncommented(text)", "twinspan.view_text(oid)", "twinspan.written(xid, cid, bigint)",
}

// formerFunctions are those of earlier agents.
var formerFunctions = [...]string{
	"twinspan.folded(text)", "twinspan.partition_bound(text, text, text, text)",
	"twinspan.capture_ddl(text, text, json, text)", "twinspan.ddl_text(text, text, boolean)", "twinspan.differing_rows(text, text)", "twinspan.left_invalid(text)", "twinspan.immutable_text(text)",
	"twinspan.capture_ddl(text, text, json)", "twinspan.missing_values(text, text, oid[])", "twinspan.pick(text, text, boolean, boolean)", "twinspan.refuse_late(text, text, text)", "twinspan.refuse_while_seeding(text, text, json)", "twinspan.say_ddl(text, text, boolean, json, text[], text[])", "twinspan.statements(text, boolean, text)",
}

// NoteExtensions records which extensions the twin's server has, so that others
// are refused on the primary when somebody creates them. Where no event triggers
// are allowed there is nothing to note.
func (s *Source) NoteExtensions(ctx context.Context, conn *pgx.Conn, names []string) error {
	var have bool
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.to_regclass('twinspan.twin_extension') IS NOT NULL`).Scan(&have); err != nil || !have {
		return pg.Classify(err, "note the twin's extensions")
	}
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM twinspan.twin_extension WHERE link = $1::text::uuid AND name <> ALL ($2)`, s.Link, names); err != nil {
			return pg.Classify(err, "note the twin's extensions")
		}
		_, err := tx.Exec(ctx, `INSERT INTO twinspan.twin_extension SELECT $1::text::uuid, unnest($2::text[]) ON CONFLICT DO NOTHING`, s.Link, names)
		return pg.Classify(err, "note the twin's extensions")
	})
}

// CopyBegins is called before the snapshot of a link's first copy is taken: what was
// noted as made since another snapshot may be in this one.
func (s *Source) CopyBegins(ctx context.Context, conn *pgx.Conn) error {
	return s.noteCopy(ctx, conn, false)
}

// CopyBegan is called when the snapshot has been taken. From then on what is created is
// noted, for it is not in the copy, and may be altered and dropped while that is made.
// Whoever creates something in a transaction that sees this commits after the
// snapshot; what a transaction has noted that the snapshot waited for is forgotten.
func (s *Source) CopyBegan(ctx context.Context, conn *pgx.Conn) error {
	return s.noteCopy(ctx, conn, true)
}

func (s *Source) noteCopy(ctx context.Context, conn *pgx.Conn, taken bool) error {
	var have bool
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.to_regclass('twinspan.made_since') IS NOT NULL`).Scan(&have); err != nil || !have {
		return pg.Classify(err, "note the copy's snapshot")
	}
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM twinspan.made_since WHERE link = $1::text::uuid`, s.Link); err != nil {
			return pg.Classify(err, "note the copy's snapshot")
		}
		_, err := tx.Exec(ctx, `INSERT INTO twinspan.made_since SELECT $1::text::uuid, 0, 0 WHERE $2`, s.Link, taken)
		return pg.Classify(err, "note the copy's snapshot")
	})
}
