package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// formerSQL makes the table of what the primary had beside the link, where a link of an
// older release lacks it.
const formerSQL = `CREATE TABLE IF NOT EXISTS twinspan.former (
    link      uuid PRIMARY KEY REFERENCES twinspan.link ON DELETE CASCADE,
    agent     text NOT NULL,
    at        timestamptz NOT NULL,
    inventory text NOT NULL
)`

// Former is what a secondary knows of what its primary has that is not carried, for the
// time after a change of places.
type Former struct {
	Agent     string    // name of the agent beside the primary
	At        time.Time // when it was looked at
	Inventory []byte    // as JSON
}

// StoreFormer stores it.
func StoreFormer(ctx context.Context, conn *pgx.Conn, link string, f Former) error {
	have, err := haveTable(ctx, conn, "twinspan.former")
	if err != nil {
		return err
	}
	if !have {
		// At no moment is there a table that the database's owner cannot dump.
		err := pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, formerSQL+PrivateSQL); err != nil {
				return pg.Classify(err, "make the table of what is not carried")
			}
			return Readable(ctx, tx)
		})
		if err != nil {
			return err
		}
	}
	_, err = conn.Exec(ctx, `INSERT INTO twinspan.former (link, agent, at, inventory) VALUES ($1::text::uuid, $2, $3, $4)
		ON CONFLICT (link) DO UPDATE SET agent = excluded.agent, at = excluded.at, inventory = excluded.inventory`, link, f.Agent, f.At, inASCII(f.Inventory))
	return pg.Classify(err, "store what is not carried")
}

// GetFormer reads it, nil where there is none.
func GetFormer(ctx context.Context, q Querier, link string) (*Former, error) {
	if have, err := haveTable(ctx, q, "twinspan.former"); err != nil || !have {
		return nil, err
	}
	var f Former
	var text string
	err := q.QueryRow(ctx, `SELECT agent, at, inventory FROM ONLY twinspan.former WHERE link = $1::text::uuid`, link).Scan(&f.Agent, &f.At, &text)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, pg.Classify(err, "read what is not carried")
	}
	f.Inventory = []byte(text)
	if !json.Valid(f.Inventory) {
		return nil, nil
	}
	return &f, nil
}

// inASCII writes JSON with letters of ASCII alone: databases of every encoding take them.
func inASCII(text []byte) string {
	var b strings.Builder
	for _, r := range string(text) {
		switch {
		case r < 0x80:
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
