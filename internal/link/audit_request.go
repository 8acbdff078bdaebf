package link

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// The methods by which the primary's operator asks the secondary about the audit.
const (
	MethodAuditShow  = "audit.show"
	MethodAuditStart = "audit.start"
)

// Audit describes the audit of the link in detail. Either side may be asked.
func (l *Link) Audit(ctx context.Context) (api.AuditReport, error) {
	return l.askAudit(ctx, MethodAuditShow, func() error { return nil })
}

// BeginAudit has a pass begin at once, unless one is under way.
func (l *Link) BeginAudit(ctx context.Context) (api.AuditReport, error) {
	return l.askAudit(ctx, MethodAuditStart, func() error {
		if l.audit.bytesPerSecond() == 0 {
			return problem.New(problem.Conflict, "audit_off", "the audit of the link is switched off").On(l.Name()).
				WithHint("twinspan link set %s --audit-rate 8MB switches it on; link verify %s compares once", l.Name(), l.Name())
		}
		if r := l.snapshot(); role.Phase(r.Phase) != role.Replicating {
			return notComparable(r.Name, role.Phase(r.Phase))
		}
		l.audit.ask()
		return nil
	})
}

func (l *Link) askAudit(ctx context.Context, method string, do func() error) (api.AuditReport, error) {
	r := l.snapshot()
	if role.Role(r.Role) == role.Primary {
		var answer api.AuditReport
		err := l.place.Peers.Call(ctx, r.Peer, method, Reference{ID: r.ID, Epoch: r.Epoch}, &answer)
		return answer, err
	}
	if err := do(); err != nil {
		return api.AuditReport{}, err
	}
	if follows(r) {
		if err := l.loadAudit(ctx); err != nil {
			return api.AuditReport{}, err
		}
	}
	return l.audit.report(r.Name), nil
}

// HandleAuditShow answers the primary's agent.
func (l *Link) HandleAuditShow(ctx context.Context, r Reference) (api.AuditReport, error) {
	if err := l.secondaryAt(r); err != nil {
		return api.AuditReport{}, err
	}
	return l.Audit(ctx)
}

// HandleAuditStart begins a pass for the primary's operator.
func (l *Link) HandleAuditStart(ctx context.Context, r Reference) (api.AuditReport, error) {
	if err := l.secondaryAt(r); err != nil {
		return api.AuditReport{}, err
	}
	return l.BeginAudit(ctx)
}

func (a *auditor) report(link string) api.AuditReport {
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

// auditRateLoop learns the rate that was chosen, which settings carry to the other side.
func (l *Link) auditRateLoop(ctx context.Context) {
	for l.audit.rate.Load() == 0 {
		var stored *int64
		err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			stored, err = catalog.AuditRate(ctx, conn, l.ID())
			return err
		})
		if err == nil {
			if stored != nil {
				l.audit.rate.CompareAndSwap(0, settingOf(*stored))
			}
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(lastPause):
		}
	}
}

// settingOf is a rate as settings have it.
func settingOf(rate int64) int64 {
	if rate == 0 {
		return auditOff
	}
	return rate
}

// storeAuditRate stores what settings say of the rate.
func (l *Link) storeAuditRate(ctx context.Context, conn *pgx.Conn, setting int64) error {
	if setting == 0 || setting == l.audit.rate.Load() {
		return nil
	}
	if err := catalog.SetAuditRate(ctx, conn, l.ID(), max(0, setting)); err != nil {
		return err
	}
	l.audit.rate.Store(setting)
	return nil
}
