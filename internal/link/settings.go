package link

import (
	"cmp"
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/auditor"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/side"
)

// Settings are what operators can change of a link that exists. They are stored
// where the change was asked for, numbered, and taken over by the side whose number
// is lower. The zero value, which an older agent sends, changes nothing.
type Settings struct {
	Number      int64  `json:"number"`
	Mode        string `json:"mode"`
	SyncTimeout int    `json:"syncTimeout"` // seconds, 0 without end
	OnConflict  string `json:"onConflict,omitempty"`
	OnIsolation string `json:"onIsolation,omitempty"`
	MaxRate     int64  `json:"maxRate,omitempty"` // bytes a second of a seeding, 0 without limit
	// AuditRate is in bytes a second; auditor.Off switches it off, 0 is none that was chosen.
	AuditRate int64 `json:"auditRate,omitempty"`
}

// SettingsRequest carries settings to the other side.
type SettingsRequest struct {
	ID string `json:"id"`
	Settings
}

func (l *Link) settings(r catalog.Link) Settings {
	return Settings{Number: r.SettingChange, Mode: r.Mode, SyncTimeout: r.SyncTimeout, OnConflict: r.OnConflict, OnIsolation: r.OnIsolation, MaxRate: r.MaxRate,
		AuditRate: l.audit.Setting()}
}

// Set changes the link on both sides; the other learns of it now or at the next
// contact.
func (l *Link) Set(ctx context.Context, in api.SetLink) error {
	next := l.settings(l.side.Record())
	if in.Mode != "" {
		next.Mode = string(in.Mode)
	}
	if in.SyncTimeoutSeconds != nil {
		next.SyncTimeout = int(*in.SyncTimeoutSeconds)
	}
	if next.Mode != string(api.Sync) && next.Mode != string(api.Async) || next.SyncTimeout < 0 {
		return problem.New(problem.Invalid, "setting_invalid", "a link has no mode %q with a timeout of %d s", next.Mode, next.SyncTimeout).On(l.Name())
	}
	if in.OnConflict != "" {
		policy, err := ParseConflict(in.OnConflict)
		if err != nil {
			return err
		}
		next.OnConflict = policy
	}
	if in.OnIsolation != "" {
		policy, err := ParseIsolation(in.OnIsolation)
		if err != nil {
			return err
		}
		next.OnIsolation = policy
	}
	if in.MaxRate != nil {
		next.MaxRate = *in.MaxRate
	}
	if in.AuditRate != nil {
		next.AuditRate = auditor.SettingOf(*in.AuditRate)
	}
	if err := cmp.Or(l.acceptThere(ctx, in.Accept), l.withdraw(ctx, in.Withdraw)); err != nil {
		return err
	}
	if next == l.settings(l.side.Record()) {
		return nil
	}
	next.Number++
	if err := l.takeSettings(ctx, next); err != nil {
		return err
	}
	if err := side.Tell(ctx, l.side, MethodSet, SettingsRequest{ID: l.ID(), Settings: next}); err != nil {
		l.log.Info("the peer learns of the change later", "err", err)
	}
	return nil
}

// handleSet takes the settings that were changed on the other side.
func (l *Link) handleSet(ctx context.Context, request SettingsRequest) error {
	return l.takeSettings(ctx, request.Settings)
}

// takeSettings stores settings that are newer than what is known here, then makes
// them known.
func (l *Link) takeSettings(ctx context.Context, s Settings) error {
	if s.Number <= l.side.Record().SettingChange {
		return nil
	}
	newer := false
	err := l.side.Keep(ctx, func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error {
		if s.Number <= r.SettingChange {
			return nil
		}
		newer = true
		r.Mode, r.SyncTimeout, r.SettingChange, r.MaxRate = s.Mode, s.SyncTimeout, s.Number, s.MaxRate
		if s.OnConflict != "" {
			r.OnConflict = s.OnConflict
		}
		if s.OnIsolation != "" {
			r.OnIsolation = s.OnIsolation
		}
		if err := l.audit.StoreRate(ctx, conn, s.AuditRate); err != nil {
			return err
		}
		return catalog.SetSettings(ctx, conn, r)
	})
	if err != nil || !newer {
		return err
	}
	r := l.side.Record()
	l.mu.Lock()
	if a := l.secondary.applier; a != nil {
		applyConflict(a, r.OnConflict)
	}
	l.mu.Unlock()
	l.side.Announce()
	l.log.Info("settings changed", "mode", s.Mode, "sync_timeout", s.SyncTimeout, "on_conflict", r.OnConflict, "on_isolation", r.OnIsolation, "max_rate", s.MaxRate, "audit_rate", l.audit.BytesPerSecond())
	return nil
}
