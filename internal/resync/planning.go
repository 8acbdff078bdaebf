package resync

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/verify"
)

// Plan adds to a plan what a comparison with the new primary would do to the
// schema; of rows nobody knows before.
func (q *Secondary) Plan(ctx context.Context, conn *pgx.Conn, out *api.RejoinPlan) error {
	r := q.side.Record()
	read, err := side.Ask[meet.SchemaRead](ctx, q.side, meet.MethodSchemaRead, meet.SchemaReadRequest{Reference: side.ReferenceOf(r), Whole: true, Format: verify.Format})
	if err != nil {
		return err
	}
	here, err := meet.ReadSchema(ctx, q.side)
	if err != nil {
		return err
	}
	if err := verify.Comparable(read.Digest.Format, here.Format); err != nil {
		return err
	}
	list, err := q.meets.Reader().Settle(ctx, verify.CompareSchemas(read.Schema, here))
	if err != nil {
		return err
	}
	remedies := verify.RemediesFor(slices.DeleteFunc(list, func(d verify.SchemaDifference) bool { return !counts(d) }))
	out.Needs = needsOf(remedies)
	for _, d := range remedies.Leave {
		out.Stays = append(out.Stays, d.Kind+" "+d.Name)
	}
	if len(out.Stays) > 0 {
		return nil
	}
	for _, t := range remedies.Recreate {
		var bytes *int64
		if err := conn.QueryRow(ctx, `SELECT pg_catalog.pg_table_size(to_regclass($1))`, t.SQL()).Scan(&bytes); err != nil {
			return pg.Classify(err, "measure "+t.String())
		}
		again := api.ReseedTable{Table: t.String(), Why: "missing"}
		if bytes != nil {
			again.Why, again.Bytes = "differs", *bytes
		}
		out.Reseed = append(out.Reseed, again)
	}
	for _, d := range remedies.Drop {
		out.Drop = append(out.Drop, d.Kind+" "+d.Name)
	}
	for _, d := range remedies.Build {
		out.Build = append(out.Build, d.Kind+" "+d.Name)
	}
	return nil
}

// needsOf says what has to be accepted of a comparison.
func needsOf(r verify.Remedies) []string {
	if len(r.Leave) > 0 {
		return []string{lost.AcceptCopy}
	}
	codes := []string{lost.AcceptCompare}
	if len(r.Drop) > 0 {
		codes = append(codes, lost.AcceptDrop)
	}
	if len(r.Recreate) > 0 {
		codes = append(codes, lost.AcceptTables)
	}
	return codes
}
