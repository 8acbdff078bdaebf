package auditor

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// The methods by which the primary's operator asks the secondary about the audit.
const (
	MethodShow  = "audit.show"
	MethodStart = "audit.start"
)

// Report describes the audit of the link in detail. Either side may be asked.
func (a *Auditor) Report(ctx context.Context) (api.AuditReport, error) {
	return a.ask(ctx, MethodShow, func() error { return nil })
}

// Begin has a pass begin at once, unless one is under way.
func (a *Auditor) Begin(ctx context.Context) (api.AuditReport, error) {
	return a.ask(ctx, MethodStart, func() error {
		if a.BytesPerSecond() == 0 {
			return problem.New(problem.Conflict, "audit_off", "the audit of the link is switched off").On(a.side.Name()).
				WithHint("twinspan link set %s --audit-rate 8MB switches it on; link verify %s compares once", a.side.Name(), a.side.Name())
		}
		if r := a.side.Record(); role.Phase(r.Phase) != role.Replicating {
			return meet.NotComparable(r.Name, role.Phase(r.Phase))
		}
		a.want()
		return nil
	})
}

func (a *Auditor) ask(ctx context.Context, method string, do func() error) (api.AuditReport, error) {
	r := a.side.Record()
	return side.OnSecondary(ctx, a.side, method, side.ReferenceOf(r), func(ctx context.Context) (api.AuditReport, error) {
		if err := do(); err != nil {
			return api.AuditReport{}, err
		}
		if side.Follows(r) {
			if err := a.load(ctx); err != nil {
				return api.AuditReport{}, err
			}
		}
		return a.report(r.Name), nil
	})
}

// HandleShow answers the primary's agent.
func (a *Auditor) HandleShow(ctx context.Context, r side.Reference) (api.AuditReport, error) {
	if err := a.side.SecondaryAt(r); err != nil {
		return api.AuditReport{}, err
	}
	return a.Report(ctx)
}

// HandleStart begins a pass for the primary's operator.
func (a *Auditor) HandleStart(ctx context.Context, r side.Reference) (api.AuditReport, error) {
	if err := a.side.SecondaryAt(r); err != nil {
		return api.AuditReport{}, err
	}
	return a.Begin(ctx)
}

func (a *Auditor) report(link string) api.AuditReport {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := api.AuditReport{Link: link, Audit: a.viewLocked(), Compared: []api.AuditItem{}}
	for i := range a.items {
		it := &a.items[i]
		v.Compared = append(v.Compared, api.AuditItem{
			Kind: string(it.Kind), Name: it.Name, Bytes: it.Bytes, Skipped: it.Skipped, EqualAt: shownTime(it.Equal), Position: it.Position,
			ComparedAt: shownTime(it.Compared), UnderWay: len(it.Upto) > 0, Differences: append([]api.Difference{}, it.differs...), More: it.more,
		})
	}
	return v
}

// rateRetry is between two attempts to read the rate that was chosen.
const rateRetry = 5 * time.Second

// LearnRate learns the rate that was chosen, which settings carry to the other side.
func (a *Auditor) LearnRate(ctx context.Context) {
	for a.rate.Load() == 0 {
		var stored *int64
		err := a.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			stored, err = catalog.AuditRate(ctx, conn, a.side.ID())
			return err
		})
		if err == nil {
			if stored != nil {
				a.rate.CompareAndSwap(0, SettingOf(*stored))
			}
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rateRetry):
		}
	}
}

// SettingOf is a rate as settings have it.
func SettingOf(rate int64) int64 {
	if rate == 0 {
		return Off
	}
	return rate
}

// StoreRate stores what settings say of the rate.
func (a *Auditor) StoreRate(ctx context.Context, conn *pgx.Conn, setting int64) error {
	if setting == 0 || setting == a.rate.Load() {
		return nil
	}
	if err := catalog.SetAuditRate(ctx, conn, a.side.ID(), max(0, setting)); err != nil {
		return err
	}
	a.rate.Store(setting)
	return nil
}
