package meet

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/verify"
)

// MethodSchemaRead asks the primary for its schema (docs/design/0013-drift.md).
const MethodSchemaRead = "schema.read"

// SchemaReadRequest asks for the schema, or its digest alone.
type SchemaReadRequest struct {
	side.Reference
	Whole  bool `json:"whole"`
	Format int  `json:"format"` // verify.Format of who asks
}

// SchemaRead answers it.
type SchemaRead struct {
	Digest   verify.Digest  `json:"digest"`
	Schema   *verify.Schema `json:"schema,omitempty"` // nil unless asked for
	Position lsn.LSN        `json:"position"`         // whoever has applied this has at least this schema
}

// ReadSchema reads a side's schema as it is now.
func ReadSchema(ctx context.Context, s *side.Side) (*verify.Schema, error) {
	conn, err := s.DSN.Connect(ctx, pg.Session{Name: s.Name() + "/schema", Settings: map[string]string{"max_parallel_workers_per_gather": "0"}})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, pg.Classify(err, "read the schema")
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	schema, err := verify.ReadSchema(ctx, tx)
	if err == nil {
		noteUnknown(ctx, s, schema.Unknown)
	}
	return schema, err
}

// noteUnknown tells once of options that this release does not know, and which are
// therefore not compared: a server's own, or those of a newer version.
func noteUnknown(ctx context.Context, s *side.Side, list []verify.Unknown) {
	const code = "option_not_compared"
	r := s.Record()
	var notices []catalog.Notice
	for _, u := range list {
		subject := u.Name + " of " + u.Of
		if !slices.ContainsFunc(r.Notices, func(n catalog.Notice) bool { return n.Code == code && n.Subject == subject }) {
			s.Log.Info("an option is not compared", "subject", subject)
			notices = append(notices, catalog.Notice{At: time.Now().UTC(), Code: code, Subject: subject,
				Text: "the option is not known to this release of twinspan, which does not compare it"})
		}
	}
	if err := s.Note(ctx, notices); err != nil {
		s.Log.Debug("notices not stored", "err", err)
	}
}

// HandleSchemaRead answers the secondary.
func (p *Primary) HandleSchemaRead(ctx context.Context, request SchemaReadRequest, s *peer.Stream) error {
	return p.service.Answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) {
		if err := verify.Comparable(verify.Format, request.Format); err != nil {
			return nil, err
		}
		schema, err := ReadSchema(ctx, p.side)
		if err != nil {
			return nil, err
		}
		read := SchemaRead{Digest: schema.Digest()}
		if request.Whole {
			read.Schema = schema
		}
		err = p.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			read.Position, err = EndOfLog(ctx, conn)
			return err
		})
		return read, err
	})
}
