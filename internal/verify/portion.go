package verify

import (
	"context"
	"slices"
)

// Portion is something whose rows are compared by themselves: a table, what a
// materialized view holds, or the large objects.
type Portion struct {
	Subject
	Rows, Bytes int64 // as far as the primary knows
	View        bool
}

// Portions lists what there is to compare, and what is left out and why. Both sides
// must be able to read spans.
func (c *Comparison) Portions(a, b *Database) (list []Portion, skipped []Skipped, err error) {
	var f Findings
	plan, err := c.plan(a, b, &f)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range plan {
		list = append(list, Portion{Subject: p.Subject, Rows: p.rows, Bytes: p.bytes, View: p.view})
	}
	f.sort()
	return list, f.Skipped, nil
}

// Portion compares one, or its span where that is set; no finding means that it is
// equal. A table that cannot be read now is told by why.
func (c *Comparison) Portion(ctx context.Context, primary, secondary Side, p Portion) (finding *TableFinding, why string, err error) {
	finding, _, err = c.table(ctx, primary, secondary, planned{p.Subject, p.Rows, p.Bytes, p.View})
	if why, out := leftOut(err); out {
		return nil, why, nil
	}
	return finding, "", err
}

// Describe describes both sides of a comparison at once.
func Describe(ctx context.Context, primary, secondary Side) (a, b *Database, err error) {
	return describe(ctx, primary, secondary)
}

// CompareSchema compares the schemas alone, as far as the agents describe them in one way.
func (c *Comparison) CompareSchema(ctx context.Context, a, b *Database) (*Findings, error) {
	f := &Findings{}
	return f, c.schema(ctx, a, b, f)
}

// byKey takes rows of a span that one side seems to lack from what differs, where both
// have them: servers that sort differently put them into different spans.
func (c *Comparison) byKey(ctx context.Context, primary, secondary Side, f *TableFinding) error {
	if f.Span == nil {
		return nil
	}
	r := ValuesRequest{Subject: f.Subject, Hashed: true}
	for i := range f.Rows {
		if f.Rows[i].State != Differs {
			r.Keys = append(r.Keys, f.Rows[i].Key)
		}
	}
	if len(r.Keys) == 0 {
		return nil
	}
	a, b, err := valuesOf(ctx, primary, secondary, r)
	if err != nil {
		return err
	}
	index := func(rows []Row) map[string][]*string {
		of := map[string][]*string{}
		for _, row := range rows {
			of[(&RowDifference{Key: row.Key}).identity()] = row.Values
		}
		return of
	}
	here, there := index(a), index(b)
	f.Rows = slices.DeleteFunc(f.Rows, func(d RowDifference) bool {
		x, y := here[d.identity()], there[d.identity()]
		return d.State != Differs && x != nil && y != nil && slices.EqualFunc(x, y, sameValue)
	})
	return nil
}
