package apply

import (
	"context"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/pgoutput"
)

// unsettled tells of a row that repair may not be able to bring over.
func (e *engine) unsettled(ctx context.Context, r *relation, c *group.Change) error {
	if e.a.Unsettled == nil || c.Op != group.Update || c.OldKind != pgoutput.OldKey || c.New.Kinds&pgoutput.HasUnchanged == 0 ||
		!group.KeyChanged(r.Key, c.Old, c.New) {
		return nil
	}
	var columns []int16
	var key []string
	for _, k := range r.Key {
		v := c.New.Column(k.Column)
		if v.Kind != pgoutput.Text {
			return corrupt("a key of table %s that is no text", r.name)
		}
		columns, key = append(columns, int16(r.columns[k.Column].number)), append(key, string(v.Value))
	}
	return e.a.Unsettled(ctx, r.oid, columns, key)
}
