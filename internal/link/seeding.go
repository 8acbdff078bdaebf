package link

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/origin"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/side"
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
	return l.side.Happen(ctx, role.SeedingDone, nil)
}

// bringBeside brings what does not come with the rows.
func (l *Link) bringBeside(ctx context.Context) error {
	l.step("copying large objects")
	if _, err := l.objects.Bring(ctx, true); err != nil {
		return err
	}
	l.step("setting sequences")
	_, err := l.sequences.Follow(ctx, l.side.Record())
	return err
}

func (l *Link) structure() *schema.Target {
	r := l.side.Record()
	return &schema.Target{DSN: l.dsn, Link: r.ID, Name: r.Name, Workers: l.place.Workers, Log: l.place.Log, Aside: gate.AsideSQL, Progress: func(p schema.Progress) {
		l.step(fmt.Sprintf("%s, %d of %d", p.Step, p.Done, p.Total))
	}}
}

func (l *Link) target(remote *remote, structure *schema.Target) *seed.Target {
	r := l.side.Record()
	return &seed.Target{
		DSN: l.dsn, Link: r.ID, Name: r.Name, Remote: remote, Workers: l.place.Workers, Places: l.place.Seeders, Log: l.place.Log,
		Prepare: func(ctx context.Context, token string) error {
			l.step("creating the schema")
			made, err := structure.Prepare(ctx, func(ctx context.Context) (*schema.Dump, error) { return remote.schema(ctx, token) })
			if err != nil {
				return err
			}
			if err := l.roles.NoteMade(ctx, made); err != nil {
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
		Room: func(bytes int64) error {
			if l.place.Storage == nil {
				return nil
			}
			return l.place.Storage().Room(bytes)
		},
		Identity: structure.BuildIdentity,
		MaxRate:  func() int64 { return l.side.Record().MaxRate },
		Progress: l.progress,
		Tables: func(each func() []seed.TableProgress) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.live.tables = each
		},
	}
}

// establish makes the origin that holds the position, and records where the
// stream begins, before anything is applied.
func (l *Link) establish(ctx context.Context, result seed.Result, systemID string) error {
	if l.side.Record().StartLSN != 0 {
		return nil
	}
	return l.side.Keep(ctx, func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error {
		if err := origin.Place(ctx, conn, r.ID, result.Start); err != nil {
			return err
		}
		r.StartLSN, r.SystemID = result.Start, systemID
		return catalog.SetStart(ctx, conn, r, result.Start, systemID)
	})
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

// seedingStep is what step said last.
func (l *Link) seedingStep() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live.seeding.Step
}

// step says what the seeding is doing; "" is nothing.
func (l *Link) step(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live.seeding.Step = text
	if text == "" {
		l.live.seeding.BytesPerSecond, l.live.seeding.EtaSeconds = 0, 0
		l.live.tables = nil
	}
}

func (l *Link) progress(p seed.Progress) {
	l.mu.Lock()
	before := l.live.seeding
	l.mu.Unlock()
	if before.BytesTotal > 0 && p.BytesDone > before.BytesDone {
		l.side.SetTrouble(nil) // what interrupted the copy before does not any more
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.live.seeding
	*s = api.Progress{Step: s.Step, TablesTotal: int64(p.TablesTotal), TablesDone: int64(p.TablesDone), BytesTotal: p.BytesTotal, BytesDone: p.BytesDone,
		BytesPerSecond: p.Rate, EtaSeconds: float64(max(0, p.Remaining))}
}

// mostSeedingTables is how many tables an answer has: beyond these nobody reads them.
const mostSeedingTables = 500

// SeedingTables tells how far each table of the first copy is, on whichever side it is asked for.
func (l *Link) SeedingTables(ctx context.Context) (api.SeedingTables, error) {
	ref := l.side.Reference()
	return side.OnSecondary(ctx, l.side, MethodSeedingTables, ref, func(ctx context.Context) (api.SeedingTables, error) { return l.handleSeedingTables(ctx, ref) })
}

// handleSeedingTables answers the primary.
func (l *Link) handleSeedingTables(_ context.Context, r Reference) (api.SeedingTables, error) {
	out := api.SeedingTables{Link: l.Name(), Tables: []api.SeedingTable{}}
	if err := l.side.SecondaryAt(r); err != nil {
		return out, err
	}
	l.mu.Lock()
	each := l.live.tables
	l.mu.Unlock()
	if each == nil {
		return out, nil
	}
	return seedingTables(l.Name(), each(), mostSeedingTables), nil
}

// seedingTables are those under way, then those that wait, then those that are copied; of each the
// largest first.
func seedingTables(link string, list []seed.TableProgress, most int) api.SeedingTables {
	out := api.SeedingTables{Link: link, Known: true, Tables: make([]api.SeedingTable, 0, min(most, len(list)))}
	urgency := map[string]int{api.TableCopying: 0, api.TableWaiting: 1, api.TableCopied: 2}
	tables := make([]api.SeedingTable, 0, len(list))
	for _, p := range list {
		state := api.TableWaiting
		switch {
		case p.Copied:
			state = api.TableCopied
		case p.Copying:
			state = api.TableCopying
		}
		tables = append(tables, api.SeedingTable{Table: p.Table.String(), State: state, BytesTotal: p.BytesTotal, BytesDone: p.BytesDone})
	}
	slices.SortStableFunc(tables, func(a, b api.SeedingTable) int {
		return cmp.Or(cmp.Compare(urgency[a.State], urgency[b.State]), cmp.Compare(b.BytesTotal, a.BytesTotal))
	})
	out.More = max(0, len(tables)-most)
	out.Tables = append(out.Tables, tables[:len(tables)-out.More]...)
	return out
}
