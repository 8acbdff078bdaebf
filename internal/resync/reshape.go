package resync

import (
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/sqlname"
	"github.com/twinspan/twinspan/internal/verify"
)

// reshapeTries is how often objects are dropped because of what was found when
// others had been.
const reshapeTries = 4

// rejoin repairs the schema, the rows, and what of the schema needs the rows.
func (n *renewal) rejoin(ctx context.Context, accepted []string) error {
	there, err := n.primary.Describe(ctx)
	if err != nil {
		return err
	}
	conn, err := n.meets.RepairSession(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	list, err := n.differences(ctx, there)
	if err != nil {
		return err
	}
	var dump *schema.Dump // where something differs
	var refused, more error
	if len(list) > 0 {
		if dump, err = meet.ReadAt[*schema.Dump](ctx, n.primary, meet.ReadRequest{Dump: true}); err != nil {
			return err
		}
		if refused, err = n.reshape(ctx, conn, there, dump, accepted); err != nil {
			return err
		}
	}
	if err := n.repair(ctx); err != nil {
		return err
	}
	if dump != nil {
		n.twin.Step("building indexes and constraints")
		if more, err = n.twin.Fill(ctx, dump, schema.PostData); err != nil {
			return err
		}
	}
	list, err = n.differences(ctx, there)
	if err == nil && len(list) > 0 {
		if err = verify.RepairSchema(ctx, conn, n.side.DSN, n.side.Name(), list); err == nil {
			list, err = n.differences(ctx, there)
		}
	}
	if err != nil || len(list) == 0 {
		return err
	}
	if why := errors.Join(refused, more); why != nil {
		n.side.Log.Warn("the schema could not be brought in line", "err", why)
	}
	p := n.incomplete(&verify.Findings{Schema: list}).(*problem.Error)
	if n.left != nil { // no rejoin
		return p
	}
	return p.WithHint("bring it in line on the new primary or here, or have the database copied anew: twinspan link rejoin %s --accept %s", n.side.Name(), lost.AcceptCopy)
}

// differences are those of the schema that count.
func (n *renewal) differences(ctx context.Context, there *verify.Database) ([]verify.SchemaDifference, error) {
	here, err := meet.ReadSchema(ctx, n.side)
	if err != nil {
		return nil, err
	}
	if err := verify.Comparable(there.Format, here.Format); err != nil {
		return nil, err
	}
	list, err := n.meets.Reader().Settle(ctx, verify.CompareSchemas(there.Schema(), here))
	return slices.DeleteFunc(list, func(d verify.SchemaDifference) bool { return !counts(d) || n.left != nil && n.left(d) }), err
}

// counts says whether a difference is to be removed from a twin. What servers have of
// extensions is their own; rows are found by the names of columns, whatever their order.
func counts(d verify.SchemaDifference) bool {
	return !d.Undecided && !(d.Kind == "extension" && d.State == verify.Differs) && !(d.Kind == "column order" && d.State == verify.Differs)
}

// reshape drops what the new primary does not have, or has otherwise, makes what is
// missing, and copies tables that are new by that. Indexes, constraints and triggers
// come when the rows are there.
func (n *renewal) reshape(ctx context.Context, conn *pgx.Conn, there *verify.Database, dump *schema.Dump, accepted []string) (refused, err error) {
	n.twin.Step("bringing the schema in line")
	before, err := tablesHere(ctx, conn)
	if err != nil {
		return nil, err
	}
	for try := range reshapeTries {
		list, err := n.differences(ctx, there)
		if err != nil || len(list) == 0 {
			return nil, err
		}
		remedies := verify.RemediesFor(list)
		if try == 0 {
			n.dropped = remedies.Drop
			if err := lost.Consent(n.side.Name(), needsOf(remedies), accepted); err != nil {
				return nil, err
			}
		}
		dropped, err := takeAway(ctx, conn, remedies, list)
		if err != nil {
			return nil, err
		}
		if refused, err = n.twin.Fill(ctx, dump, schema.PreData); err != nil {
			return nil, err
		}
		if dropped == 0 {
			break
		}
	}
	if err := n.twin.Shut(ctx); err != nil {
		return nil, err
	}
	now, err := tablesHere(ctx, conn)
	if err != nil {
		return nil, err
	}
	for _, t := range there.Tables {
		if oid, have := now[t.Name]; have && t.Skip == "" && before[t.Name] != oid {
			n.twin.Step("copying " + t.Name.String())
			if err := verify.CopyTable(ctx, conn, n.side.DSN, n.side.Name(), t, n.primary); err != nil {
				return nil, err
			}
		}
	}
	return refused, nil
}

// passedOver are the SQLSTATEs of drops that another drop makes needless: of what is
// another kind of object by now, belongs to a parent, or is needed by what goes too.
var passedOver = [...]string{"42809", "42P16", "2BP01", "42P01", "3F000", "42704", "42703"}

// takeAway drops what the remedies call for, and says how many drops there were.
func takeAway(ctx context.Context, conn *pgx.Conn, r verify.Remedies, list []verify.SchemaDifference) (dropped int, err error) {
	var statements []string
	for _, t := range r.Recreate {
		if slices.ContainsFunc(list, func(d verify.SchemaDifference) bool {
			return d.Kind == "table" && d.State == verify.Missing && d.Table() == t
		}) {
			continue
		}
		statements = append(statements, "DROP TABLE IF EXISTS "+t.SQL()+" CASCADE")
	}
	for _, d := range append(slices.Clone(r.Drop), r.Build...) {
		if sql := d.Dropping(); sql != "" && d.Repair == "" {
			statements = append(statements, sql)
		}
	}
	for _, sql := range statements {
		_, err := conn.Exec(ctx, sql)
		if err != nil && !slices.Contains(passedOver[:], pg.SQLState(err)) {
			return dropped, pg.Classify(err, "drop what the new primary does not have")
		}
	}
	return len(statements), nil
}

// tablesHere lists the tables that hold rows, with their numbers.
func tablesHere(ctx context.Context, conn *pgx.Conn) (map[sqlname.Table]uint32, error) {
	rows, err := conn.Query(ctx, `SELECT n.nspname, c.relname, c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'`)
	if err != nil {
		return nil, pg.Classify(err, "list tables")
	}
	list := map[sqlname.Table]uint32{}
	var t sqlname.Table
	var oid uint32
	_, err = pgx.ForEachRow(rows, []any{&t.Schema, &t.Name, &oid}, func() error {
		list[t] = oid
		return nil
	})
	return list, pg.Classify(err, "list tables")
}
