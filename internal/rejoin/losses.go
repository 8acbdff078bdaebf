package rejoin

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/side"
)

// The methods by which one side shows the other what it has lost. They are
// answered whatever the epoch: who was left behind is the last to learn it.
const (
	MethodLost    = "lost.show"    // what have forced failovers left behind on your side?
	MethodPage    = "lost.page"    // the transactions themselves
	MethodDiscard = "lost.discard" // forget them
)

// LostRequest names a link, and a parting where it is about one.
type LostRequest struct {
	ID    string `json:"id"`
	Epoch int64  `json:"epoch"`
}

// LostPageRequest asks for a page.
type LostPageRequest struct {
	LostRequest
	After int64 `json:"after"`
	Limit int   `json:"limit"`
	SQL   bool  `json:"sql"`
}

// LinkID implements side.Request.
func (r LostRequest) LinkID() string { return r.ID }

// LostAnswer is what a side has lost.
type LostAnswer struct {
	Partings []api.Parting `json:"partings"`
}

// With is what Losses takes from the link.
type With struct {
	Agent  string // the name of the agent beside the side's server
	Source func() capture.Source
	Spool  *flow.Spool // for values too large for memory
	Log    *slog.Logger
}

// Losses has what forced failovers have left behind on a side.
type Losses struct {
	side *side.Side
	with With
}

// NewLosses returns what has been left behind on a side.
func NewLosses(s *side.Side, with With) *Losses { return &Losses{side: s, with: with} }

// slotReader reads the slot that this side had as the primary. It implements
// lost.Source.
type slotReader struct{ losses *Losses }

// Read implements lost.Source.
func (s slotReader) Read(ctx context.Context, from lsn.LSN, encoding string, w io.Writer) error {
	o := s.losses
	if from == 0 {
		return problem.New(problem.Diverged, "parting_unknown", "the other side was made primary in the middle of a rejoin: nobody knows where its history parts from this one").On(o.side.Name()).
			WithHint("a rejoin has to compare the databases: twinspan link rejoin %s --plan", o.side.Name())
	}
	err := o.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return capture.CheckSlot(ctx, conn, catalog.ObjectName(o.side.ID()), from, "")
	})
	if p := problem.As(err); p != nil && p.Kind == problem.Diverged {
		return p.WithHint("a rejoin has to compare the databases: twinspan link rejoin %s --plan", o.side.Name())
	}
	if err != nil {
		return err
	}
	stream := capture.NewStream(o.with.Source(), from)
	stream.Encoding, stream.Peek, stream.Sink = encoding, true, unflushed{w}
	return stream.Run(ctx)
}

// unflushed is a sink that keeps nothing back.
type unflushed struct{ io.Writer }

func (unflushed) Flush() error { return nil }

// Collect records what this side committed behind the position at which the
// other took over.
func (o *Losses) Collect(ctx context.Context, parting lost.Parting) error {
	c := &lost.Collector{
		Parting: parting, DSN: o.side.DSN, Name: o.side.Name(), Source: slotReader{o}, Log: o.with.Log,
		Spill: func(ctx context.Context, from io.Reader, length int) (lost.Big, error) {
			return o.with.Spool.Keep(ctx, from, length)
		},
	}
	return c.Run(ctx)
}

// Show says what forced failovers have left behind, on either side.
func (o *Losses) Show(ctx context.Context) (api.Lost, error) {
	r := o.side.Record()
	out := api.Lost{Link: r.Name}
	mine, err := o.here(ctx)
	if err != nil {
		return out, err
	}
	theirs, err := side.Call[LostAnswer](ctx, o.side, MethodLost, LostRequest{ID: r.ID})
	if err != nil && len(mine) == 0 {
		return out, err
	}
	out.Partings = append(mine, theirs.Partings...)
	slices.SortFunc(out.Partings, func(a, b api.Parting) int { return cmp.Compare(a.Epoch, b.Epoch) })
	return out, nil
}

func (o *Losses) here(ctx context.Context) (list []api.Parting, err error) {
	// Not the side's session: counting may take long.
	conn, err := lost.Connect(ctx, o.side.DSN, o.side.Name())
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	found, err := lost.Summaries(ctx, conn, o.side.ID())
	for _, s := range found {
		list = append(list, o.showParting(s))
	}
	return list, err
}

func (o *Losses) showParting(s lost.Summary) api.Parting {
	p := api.Parting{
		Epoch: s.Epoch, Agent: o.with.Agent, Database: o.side.Database, Mended: s.Mended, Parted: s.Parted.String(), ReadTo: s.ReadTo.String(),
		Transactions: s.Transactions, Changes: s.Changes, State: api.PartingReading, Tables: []api.LostTable{},
	}
	switch {
	case s.Discarded:
		p.State = api.PartingDiscarded
	case s.Problem != nil:
		p.State = api.PartingUnreadable
		p.Problem = side.ProblemOf(s.Problem, api.Blocks)
	case s.Complete:
		p.State = api.PartingRead
	}
	if s.Transactions > 0 {
		p.First, p.Last = &s.First, &s.Last
	}
	for _, t := range s.Tables {
		p.Tables = append(p.Tables, api.LostTable(t))
	}
	return p
}

// Page returns lost transactions, in commit order.
func (o *Losses) Page(ctx context.Context, epoch, after int64, limit int, sql bool) (api.LostPage, error) {
	request := LostPageRequest{LostRequest: LostRequest{ID: o.side.ID(), Epoch: epoch}, After: after, Limit: limit, SQL: sql}
	page, err := o.pageHere(ctx, request)
	if problem.CodeOf(err) != "lost_unknown" {
		return page, err
	}
	return side.Ask[api.LostPage](ctx, o.side, MethodPage, request)
}

func (o *Losses) pageHere(ctx context.Context, r LostPageRequest) (api.LostPage, error) {
	page := api.LostPage{Transactions: []api.LostTransaction{}}
	conn, err := lost.Connect(ctx, o.side.DSN, o.side.Name())
	if err != nil {
		return page, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	limit := lost.Limit{Changes: r.Limit}
	if r.SQL {
		limit.Long = 16 << 20
	}
	list, next, more, err := lost.Page(ctx, conn, r.ID, r.Epoch, r.After, limit)
	if err != nil {
		return page, err
	}
	page.Next, page.More = next, more
	for _, t := range list {
		shown := api.LostTransaction{Number: t.Number, XID: t.XID, Position: t.LSN, CommittedAt: t.At, Total: t.Total}
		for i := range t.Changes {
			shown.Changes = append(shown.Changes, showLost(&t.Changes[i], r.SQL))
		}
		page.Transactions = append(page.Transactions, shown)
	}
	return page, nil
}

func showLost(c *lost.Change, sql bool) api.LostChange {
	out := api.LostChange{Number: c.Number, Kind: string(c.Kind), Key: append([]string{}, c.Key...), Text: c.Detail, Old: []api.LostValue{}, New: []api.LostValue{}}
	if c.Table.Name != "" {
		out.Table = c.Table.String()
	}
	if c.Kind == lost.Schema {
		_, out.Table, out.Text = c.SchemaChange()
	}
	if sql {
		out.SQL, out.Complete = c.Redo()
		out.SQL = strings.ToValidUTF8(out.SQL, "\uFFFD")
		return out
	}
	out.Old, out.New = showLostValues(c.Old), showLostValues(c.New)
	return out
}

func showLostValues(list []lost.Value) []api.LostValue {
	out := []api.LostValue{}
	for _, v := range list {
		shown := api.LostValue{Column: v.Column, State: string(v.State), Hex: v.Hex, Bytes: v.Bytes}
		if v.State == lost.Known || v.State == lost.Long {
			shown.Value = &v.Text
		}
		out = append(out, shown)
	}
	return out
}

// Discard forgets what was lost at a parting, or at all of them when epoch is
// 0, and returns what is known then.
func (o *Losses) Discard(ctx context.Context, epoch int64) (api.Lost, error) {
	known, err := o.Show(ctx)
	if err != nil {
		return known, err
	}
	found := false
	for _, p := range known.Partings {
		if epoch != 0 && p.Epoch != epoch || epoch == 0 && p.State == api.PartingDiscarded {
			continue
		}
		found = true
		if err := o.discard(ctx, LostRequest{ID: o.side.ID(), Epoch: p.Epoch}); err != nil {
			return known, err
		}
	}
	if !found && epoch != 0 {
		return known, problem.New(problem.NotFound, "lost_unknown", "nothing was lost at epoch %d", epoch)
	}
	return o.Show(ctx)
}

func (o *Losses) discard(ctx context.Context, r LostRequest) error {
	err := o.HandleDiscard(ctx, r)
	if problem.CodeOf(err) != "lost_unknown" {
		return err
	}
	return side.Tell(ctx, o.side, MethodDiscard, r)
}

// HandleShow tells the other side what was lost here.
func (o *Losses) HandleShow(ctx context.Context, _ LostRequest) (LostAnswer, error) {
	list, err := o.here(ctx)
	return LostAnswer{Partings: list}, err
}

// HandleDiscard forgets what was lost here.
func (o *Losses) HandleDiscard(ctx context.Context, r LostRequest) error {
	conn, err := lost.Connect(ctx, o.side.DSN, o.side.Name())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = lost.Discard(ctx, conn, r.ID, r.Epoch)
	if p := problem.As(err); p != nil && p.Code == "lost_needed" {
		return p.On(o.side.Name()).WithHint("rejoin first: twinspan link rejoin %s", o.side.Name())
	}
	return err
}

// HandlePage sends lost transactions.
func (o *Losses) HandlePage(ctx context.Context, r LostPageRequest, s *peer.Stream) error {
	page, err := o.pageHere(ctx, r)
	if err != nil {
		return err
	}
	return flow.Reply(s, page)
}
