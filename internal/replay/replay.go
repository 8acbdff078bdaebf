// Package replay makes the schema changes of a primary on its twin: at their place of the stream,
// with the rights of whoever made them, or not at all, where somebody said to leave one out. What no
// event trigger saw on the primary is made as its catalogs have it. Docs:
// docs/design/0006-schema-changes.md and docs/design/0022-replay-with-rights.md.
package replay

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/ddl"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Roles sees to the roles that schema changes are made by, and name.
type Roles interface {
	// Ensure makes the roles that are missing.
	Ensure(ctx context.Context, names []string) error
	// Compare gives roles what they are due.
	Compare(ctx context.Context, names []string) error
	// GiveForChange gives the role of a change what it had when it made the change.
	GiveForChange(ctx context.Context, change *ddl.Change) (gave bool, err error)
	// Ordinary returns what an ordinary session here has set.
	Ordinary(ctx context.Context) ([]ddl.Setting, error)
	// Lends says whether a change is made with the agent's rights.
	Lends(ctx context.Context, change *ddl.Change) (bool, error)
	// ExplainLack says what a change lacks, and which view may be filled with the agent's rights.
	ExplainLack(ctx context.Context, change *ddl.Change, cause error) (waits *problem.Error, filled string, err error)
}

// Replayer makes the schema changes of a primary on its twin, and answers on the primary what makes
// relations that no event trigger saw.
type Replayer struct {
	side    *side.Side
	service *side.Service
	meets   *meet.Secondary
	roles   Roles
	resume  func(ctx context.Context) error // lets a link that is broken go on
}

// New returns the replayer of a side. resume lets a link that is broken go on.
func New(s *side.Side, service *side.Service, meets *meet.Secondary, roles Roles, resume func(ctx context.Context) error) *Replayer {
	return &Replayer{side: s, service: service, meets: meets, roles: roles, resume: resume}
}

// Change returns what is to be done for a schema change at its place of the stream; nil for nothing.
func (p *Replayer) Change(ctx context.Context, s apply.Signal) (*apply.Script, error) {
	change, err := ddl.Parse(s.Payload)
	skip, failed := p.passesOver(ctx, s.At, s.Place)
	switch {
	case failed != nil:
		return nil, failed
	case err != nil && !skip:
		if problem.KindOf(err) == problem.Diverged {
			_, failed = p.stopsAt(ctx, s.At, s.Place, "the schema change", problem.As(err).Subject)
		}
		return nil, cmp.Or(failed, err)
	case skip && change == nil:
		return nil, p.noteSkipped(ctx, "a schema change", "", s.At)
	case skip:
		return nil, p.noteSkipped(ctx, change.Tag, change.Subject(), s.At)
	}
	return p.script(ctx, change, s.At, s.Place, "")
}

// script makes a script of a change. filled is the materialized view that a change
// fills with the agent's rights, "" where it does not.
func (p *Replayer) script(ctx context.Context, change *ddl.Change, at lsn.LSN, place int, filled string) (*apply.Script, error) {
	if err := p.roles.Ensure(ctx, change.NamedRoles()); err != nil {
		return nil, err
	}
	ordinary, err := p.roles.Ordinary(ctx)
	if err != nil {
		return nil, err
	}
	lent, err := p.roles.Lends(ctx, change)
	if err != nil {
		return nil, err
	}
	versioned, err := p.hasVersion(ctx, change, at, place)
	if err != nil {
		return nil, err
	}
	var random [16]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	script := change.Script(ddl.Rights{Name: hex.EncodeToString(random[:]), Ordinary: ordinary, Lent: lent || filled != "", Filled: filled, Versioned: versioned, Aside: gate.AsideSQL, Settle: pg.SettleSQL})
	if len(script.Statements) == 0 {
		p.side.Log.Info("schema change passed over", "tag", change.Tag, "subject", change.Subject())
		return nil, nil
	}
	made := &apply.Script{
		Statements: slices.Concat([]string{gate.BackSQL}, script.Statements, []string{gate.EnsureSQL, gate.AsideSQL}), Main: script.Main + 1, Tag: change.Tag, Subject: change.Subject(),
		Renamed: change.RenamedSchemas(),
		Lacking: func(ctx context.Context, cause error) (*apply.Script, *problem.Error, error) {
			return p.lacking(ctx, change, at, place, cause)
		},
		Refused: func(ctx context.Context, at lsn.LSN, place int) {
			if _, err := p.stopsAt(ctx, at, place, change.Tag, change.Subject()); err != nil {
				p.side.Log.Warn("cannot note the change at which the stream stands", "err", err)
			}
		},
	}
	for _, t := range change.Anew {
		made.Anew = append(made.Anew, sqlname.Table{Schema: string(t.Schema), Name: string(t.Table)})
	}
	made.Absent = func(ctx context.Context, xid uint32, said string) ([]*apply.Script, bool, error) {
		return p.absent(ctx, change, xid, said, at, place)
	}
	return made, nil
}

// lacking answers a right that a change lacks: roles are compared, which may give what
// is ours to give, and unless somebody said to leave the change out it is tried again.
func (p *Replayer) lacking(ctx context.Context, change *ddl.Change, at lsn.LSN, place int, cause error) (*apply.Script, *problem.Error, error) {
	skip, err := p.stopsAt(ctx, at, place, change.Tag, change.Subject())
	if err != nil {
		return nil, nil, err
	}
	if skip {
		return &apply.Script{Tag: change.Tag, Subject: change.Subject()}, nil, p.noteSkipped(ctx, change.Tag, change.Subject(), at)
	}
	if err := p.roles.Compare(ctx, change.NamedRoles()); err != nil {
		p.side.Log.Debug("roles cannot be compared", "err", err)
	}
	gave, err := p.roles.GiveForChange(ctx, change)
	if err != nil {
		return nil, nil, err
	}
	waits, filled, err := p.roles.ExplainLack(ctx, change, cause)
	if err != nil {
		return nil, nil, err
	}
	if gave {
		waits = nil // nobody else has to do anything before the next try
	}
	script, err := p.script(ctx, change, at, place, filled)
	return script, waits, err
}

// hasVersion says whether this server has the version of the extension that a change makes
// or updates. Without it nothing is updated: the stream waits until the package is there.
func (p *Replayer) hasVersion(ctx context.Context, change *ddl.Change, at lsn.LSN, place int) (has bool, err error) {
	name, version := string(change.Extension), string(change.Version)
	if name == "" || version == "" {
		return false, nil
	}
	err = p.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_available_extension_versions v WHERE v.name = $1 AND v.version = $2)
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension e CROSS JOIN LATERAL pg_catalog.pg_extension_update_paths(e.extname) p
				WHERE e.extname = $1 AND p.source = e.extversion AND p.target = $2 AND p.path IS NULL)`, name, version).Scan(&has)
		return pg.Classify(err, "look for the version of an extension")
	})
	if err != nil || has || !change.Updates() {
		return has, err
	}
	if _, err := p.stopsAt(ctx, at, place, change.Tag, change.Subject()); err != nil {
		return false, err
	}
	return false, problem.New(problem.Transient, "extension_version_missing", "extension %s was updated to version %s on the primary, which this server cannot do", name, version).On(name).
		WithHint("install the package with that version on the secondary's server: the link goes on by itself; or leave the change out: twinspan link resume %s --skip-change", p.side.Name())
}
