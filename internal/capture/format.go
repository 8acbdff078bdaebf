package capture

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// Format is what the signals of a primary are that this program makes, and the newest that it
// takes. 1 had rows sent anew by an UPDATE, 2 has them read. A primary says to its twins what all of them
// understand.
const Format = 2

// NoteFormat records which format the twin's agent understands. Functions and triggers that an
// older agent made are replaced in one transaction when the first twin understands newer ones; until then
// they are left as they are.
func (s *Source) NoteFormat(ctx context.Context, conn *pgx.Conn, format int) error {
	var captures, current bool
	err := conn.QueryRow(ctx, `SELECT pg_catalog.to_regclass('twinspan.made_since') IS NOT NULL, pg_catalog.to_regprocedure('twinspan.capture_command(text, boolean, boolean)') IS NOT NULL`).Scan(&captures, &current)
	if err != nil || !captures || !current && format < Format {
		return pg.Classify(err, "note what the twin understands")
	}
	if !current {
		if err := s.upgrade(ctx); err != nil {
			return err
		}
	}
	_, err = conn.Exec(ctx, `INSERT INTO twinspan.twin_format VALUES ($1::text::uuid, $2) ON CONFLICT (link) DO UPDATE SET format = excluded.format
		WHERE twin_format.format <> excluded.format`, s.Link, max(format, 1))
	return pg.Classify(err, "note what the twin understands")
}

// upgrade replaces functions and triggers of an older agent. What has other arguments now
// stays beside, for a command that is just being given may have begun with it.
func (s *Source) upgrade(ctx context.Context) error {
	conn, err := s.open(ctx, "prepare")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return s.patiently(ctx, func() error {
		return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			functions, err := planned(ctx, tx.Conn(), functionsSQL())
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, functions); err != nil {
				return pg.Classify(err, "replace the functions of the primary")
			}
			if err := captureSchema(ctx, tx.Conn()); err != nil {
				return err
			}
			if err := s.noteFilled(ctx, tx.Conn()); err != nil {
				return err
			}
			if err := sendStored(ctx, tx); err != nil {
				return err
			}
			return s.prove(ctx, tx)
		})
	})
}
