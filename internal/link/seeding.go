package link

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// seed makes the first copy, or goes on with it. Every step knows what of it was
// done before, so it is simply begun again after any interruption.
func (l *Link) seed(ctx context.Context) error {
	remote := &remote{link: l}
	structure := l.structure()
	target := l.target(remote, structure)
	l.step("copying tables")
	result, err := target.Copy(ctx)
	if err != nil {
		return err
	}
	if err := l.establish(ctx, result, remote.systemID); err != nil {
		return err
	}
	if err := l.repair(ctx, structure, result); err != nil {
		return err
	}
	l.step("building indexes and constraints")
	if err := structure.BuildRest(ctx); err != nil {
		return err
	}
	if err := l.bringBeside(ctx); err != nil {
		return err
	}
	l.step("gathering statistics")
	if err := structure.Analyze(ctx); err != nil {
		return err
	}
	if err := l.setProperties(ctx, structure); err != nil {
		return err
	}
	if err := l.shutTables(ctx); err != nil {
		return err
	}
	l.step("")
	return l.happen(ctx, role.SeedingDone, nil)
}

// bringBeside brings what does not come with the rows.
func (l *Link) bringBeside(ctx context.Context) error {
	l.step("copying large objects")
	if _, err := l.BringLargeObjects(ctx, true); err != nil {
		return err
	}
	l.step("setting sequences")
	_, err := l.followSequences(ctx, l.snapshot())
	return err
}

func (l *Link) structure() *schema.Target {
	r := l.snapshot()
	return &schema.Target{DSN: l.dsn, Link: r.ID, Name: r.Name, Workers: l.place.Workers, Log: l.place.Log, Aside: gate.AsideSQL, Progress: func(p schema.Progress) {
		l.step(fmt.Sprintf("%s, %d of %d", p.Step, p.Done, p.Total))
	}}
}

func (l *Link) target(remote *remote, structure *schema.Target) *seed.Target {
	r := l.snapshot()
	return &seed.Target{
		DSN: l.dsn, Link: r.ID, Name: r.Name, Remote: remote, Workers: l.place.Workers, Places: l.place.Seeders, Log: l.place.Log,
		Prepare: func(ctx context.Context, token string) error {
			l.step("creating the schema")
			made, err := structure.Prepare(ctx, func(ctx context.Context) (*schema.Dump, error) { return remote.schema(ctx, token) })
			if err != nil {
				return err
			}
			if err := l.noteRoles(ctx, made); err != nil {
				return err
			}
			if err := structure.SetSettings(ctx); err != nil {
				return err
			}
			// Nobody but the agent writes into the copy, from the first row on.
			if err := l.shutTables(ctx); err != nil {
				return err
			}
			l.step("copying tables")
			return nil
		},
		Identity: structure.BuildIdentity,
		MaxRate:  func() int64 { return l.snapshot().MaxRate },
		Progress: l.progress,
	}
}

// establish makes the origin that holds the position, and records where the
// stream begins, before anything is applied.
func (l *Link) establish(ctx context.Context, result seed.Result, systemID string) error {
	r := l.snapshot()
	if r.StartLSN != 0 {
		return nil
	}
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `SELECT CASE WHEN NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = $1) THEN pg_replication_origin_create($1) END`,
			catalog.ObjectName(r.ID))
		if err != nil {
			return pg.Classify(err, "create the replication origin")
		}
		_, err = conn.Exec(ctx, `SELECT pg_replication_origin_advance($1, $2::text::pg_lsn)`, catalog.ObjectName(r.ID), result.Start.String())
		if err != nil {
			return pg.Classify(err, "set the replication origin")
		}
		return catalog.SetStart(ctx, conn, &r, result.Start, systemID)
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.record.StartLSN, l.record.SystemID = result.Start, systemID
	l.mu.Unlock()
	return nil
}

// repair, after a seeding that needed more than one snapshot, brings the rows of
// the earlier ones to the state of the last (docs/design/0003-seeding.md).
func (l *Link) repair(ctx context.Context, structure *schema.Target, result seed.Result) error {
	if result.RepairUntil == 0 {
		return nil
	}
	position, err := l.position(ctx)
	if err != nil || position >= result.RepairUntil {
		return err
	}
	l.step("building keys")
	if err := structure.BuildIdentities(ctx); err != nil {
		return err
	}
	l.step("bringing the copy to one state")
	return l.stream(ctx, result, result.RepairUntil)
}

// shutTables gives every table its gate. The database's owner can dump the twin from then on.
func (l *Link) shutTables(ctx context.Context) error {
	return l.withGateSession(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if err := gate.ShutTables(ctx, conn); err != nil {
			return err
		}
		l.letOwnerRead(ctx, conn)
		return nil
	})
}

func roleCreated(name string) catalog.Notice {
	return catalog.Notice{At: time.Now().UTC(), Code: "role_created", Subject: name,
		Text: "the role " + sqlname.Quote(name) + " was missing on the secondary and was created NOLOGIN, for it owns or is granted something"}
}

// noteRoles tells the owner of the link which roles it made.
func (l *Link) noteRoles(ctx context.Context, made []string) error {
	r := l.snapshot()
	var notices []catalog.Notice
	for _, name := range made {
		if !slices.ContainsFunc(r.Notices, func(n catalog.Notice) bool { return n.Code == "role_created" && n.Subject == name }) {
			notices = append(notices, roleCreated(name))
		}
	}
	return l.note(ctx, notices)
}

// step says what the seeding is doing; "" is nothing.
func (l *Link) step(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live.seeding.Step = text
	if text == "" {
		l.live.seeding.BytesPerSecond, l.live.seeding.EtaSeconds = 0, 0
	}
}

func (l *Link) progress(p seed.Progress) {
	l.mu.Lock()
	before := l.live.seeding
	l.mu.Unlock()
	if before.BytesTotal > 0 && p.BytesDone > before.BytesDone {
		l.setTrouble(nil) // what interrupted the copy before does not any more
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.live.seeding
	*s = api.Progress{Step: s.Step, TablesTotal: int64(p.TablesTotal), TablesDone: int64(p.TablesDone), BytesTotal: p.BytesTotal, BytesDone: p.BytesDone,
		BytesPerSecond: p.Rate, EtaSeconds: float64(max(0, p.Remaining))}
}
