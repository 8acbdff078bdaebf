package link

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/ddl"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
)

// superuserCommands is what the twin's operator agrees to: that what superusers of the
// primary did, who are none here, is done with the agent's rights.
const superuserCommands = "superuser_commands"

// signal takes what the primary says at a place of the stream, and returns what
// is to be done there. Kinds that a newer primary may send are passed over only
// when they are of no consequence; there are none yet.
func (l *Link) signal(ctx context.Context, s apply.Signal) (*apply.Script, error) {
	switch s.Kind {
	case "ddl":
	case "barrier":
		return nil, l.meetBarrier(s.Payload)
	default:
		return nil, nil
	}
	change, err := ddl.Parse(s.Payload)
	skip, failed := l.passesOver(ctx, s.At, s.Place)
	switch {
	case failed != nil:
		return nil, failed
	case err != nil && !skip:
		if problem.KindOf(err) == problem.Diverged {
			_, failed = l.stopsAt(ctx, s.At, s.Place, "the schema change", problem.As(err).Subject)
		}
		return nil, firstOf(failed, err)
	case skip && change == nil:
		return nil, l.noteSkipped(ctx, "a schema change", "", s.At)
	case skip:
		return nil, l.noteSkipped(ctx, change.Tag, change.Subject(), s.At)
	}
	return l.replay(ctx, change, s.At, s.Place, "")
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// replay makes a script of a change. filled is the materialized view that a change
// fills with the agent's rights, "" where it does not.
func (l *Link) replay(ctx context.Context, change *ddl.Change, at lsn.LSN, place int, filled string) (*apply.Script, error) {
	if err := l.ensureRoles(ctx, change.NamedRoles()); err != nil {
		return nil, err
	}
	ordinary, err := l.ordinarySettings(ctx)
	if err != nil {
		return nil, err
	}
	lent, err := l.lends(ctx, change)
	if err != nil {
		return nil, err
	}
	versioned, err := l.hasVersion(ctx, change, at, place)
	if err != nil {
		return nil, err
	}
	var random [16]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	script := change.Script(ddl.Rights{Name: hex.EncodeToString(random[:]), Ordinary: ordinary, Lent: lent || filled != "", Filled: filled, Versioned: versioned, Aside: gate.AsideSQL, Settle: pg.SettleSQL})
	if len(script.Statements) == 0 {
		l.log.Info("schema change passed over", "tag", change.Tag, "subject", change.Subject())
		return nil, nil
	}
	made := &apply.Script{
		Statements: slices.Concat([]string{gate.BackSQL}, script.Statements, []string{gate.EnsureSQL, gate.AsideSQL}), Main: script.Main + 1, Tag: change.Tag, Subject: change.Subject(),
		Renamed: change.RenamedSchemas(),
		Lacking: func(ctx context.Context, cause error) (*apply.Script, *problem.Error, error) {
			return l.lacking(ctx, change, at, place, cause)
		},
		Refused: func(ctx context.Context, at lsn.LSN, place int) {
			if _, err := l.stopsAt(ctx, at, place, change.Tag, change.Subject()); err != nil {
				l.log.Warn("cannot note the change at which the stream stands", "err", err)
			}
		},
	}
	made.Absent = func(ctx context.Context, xid uint32, said string) ([]*apply.Script, bool, error) {
		return l.absent(ctx, change, xid, said, at, place)
	}
	return made, nil
}

// lacking answers a right that a change lacks: roles are compared, which may give what
// is ours to give, and unless somebody said to leave the change out it is tried again.
func (l *Link) lacking(ctx context.Context, change *ddl.Change, at lsn.LSN, place int, cause error) (*apply.Script, *problem.Error, error) {
	skip, err := l.stopsAt(ctx, at, place, change.Tag, change.Subject())
	if err != nil {
		return nil, nil, err
	}
	if skip {
		return &apply.Script{Tag: change.Tag, Subject: change.Subject()}, nil, l.noteSkipped(ctx, change.Tag, change.Subject(), at)
	}
	if err := l.compareRoles(ctx, change.NamedRoles()); err != nil {
		l.log.Debug("roles cannot be compared", "err", err)
	}
	gave, err := l.giveForChange(ctx, change)
	if err != nil {
		return nil, nil, err
	}
	waits, filled, err := l.explainLack(ctx, change, cause)
	if err != nil {
		return nil, nil, err
	}
	if gave {
		waits = nil // nobody else has to do anything before the next try
	}
	script, err := l.replay(ctx, change, at, place, filled)
	return script, waits, err
}

// hasVersion says whether this server has the version of the extension that a change makes
// or updates. Without it nothing is updated: the stream waits until the package is there.
func (l *Link) hasVersion(ctx context.Context, change *ddl.Change, at lsn.LSN, place int) (has bool, err error) {
	name, version := string(change.Extension), string(change.Version)
	if name == "" || version == "" {
		return false, nil
	}
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_available_extension_versions v WHERE v.name = $1 AND v.version = $2)
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension e CROSS JOIN LATERAL pg_catalog.pg_extension_update_paths(e.extname) p
				WHERE e.extname = $1 AND p.source = e.extversion AND p.target = $2 AND p.path IS NULL)`, name, version).Scan(&has)
		return pg.Classify(err, "look for the version of an extension")
	})
	if err != nil || has || !change.Updates() {
		return has, err
	}
	if _, err := l.stopsAt(ctx, at, place, change.Tag, change.Subject()); err != nil {
		return false, err
	}
	return false, problem.New(problem.Transient, "extension_version_missing", "extension %s was updated to version %s on the primary, which this server cannot do", name, version).On(name).
		WithHint("install the package with that version on the secondary's server: the link goes on by itself; or leave the change out: twinspan link resume %s --skip-change", l.Name())
}

// lends says whether a change is made with the agent's rights: its role is a superuser
// on the primary and none here, and the twin's operator agreed.
func (l *Link) lends(ctx context.Context, change *ddl.Change) (bool, error) {
	agreed, err := l.agreed(ctx, superuserCommands)
	if err != nil || !agreed {
		return false, err
	}
	var super bool
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT coalesce((SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = $1), false)`, string(change.Role)).Scan(&super)
		return pg.Classify(err, "look for a role")
	})
	if err != nil || super {
		return false, err
	}
	return l.wasSuperuser(ctx, change, string(change.Role))
}

// wasSuperuser says whether a role is a superuser of the primary, the role of a change whether it
// was one when it made that.
func (l *Link) wasSuperuser(ctx context.Context, change *ddl.Change, name string) (bool, error) {
	if change.Superuser != nil && name == string(change.Role) {
		return *change.Superuser, nil
	}
	return l.superuserThere(ctx, name)
}

// agreed says whether somebody agreed to what a code is about, on this side.
func (l *Link) agreed(ctx context.Context, code string) (agreed bool, err error) {
	r := l.snapshot()
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		list, err := catalog.Consents(ctx, conn, r.ID)
		agreed = slices.Contains(list, code)
		return err
	})
	return agreed, err
}

// ordinarySettings are the values that an ordinary session of the twin's database has
// of what the agent's sessions fix for themselves.
func (l *Link) ordinarySettings(ctx context.Context) ([]ddl.Setting, error) {
	l.roles.mu.Lock()
	known := l.roles.ordinary
	l.roles.mu.Unlock()
	if known != nil {
		return known, nil
	}
	settings, err := rights.Ordinary(ctx, l.dsn, l.Name())
	if err != nil {
		return nil, err
	}
	list := make([]ddl.Setting, len(settings))
	for i, s := range settings {
		list[i] = ddl.Setting(s)
	}
	l.roles.mu.Lock()
	l.roles.ordinary = list
	l.roles.mu.Unlock()
	return list, nil
}

// meetBarrier notes that everything before a failover's barrier is committed here.
func (l *Link) meetBarrier(payload []byte) error {
	var barrier struct{ Operation string }
	if err := json.Unmarshal(payload, &barrier); err != nil {
		return problem.Wrap(err, problem.Internal, "stream_corrupt", "read a barrier")
	}
	if f := l.currentFailover(barrier.Operation); f != nil {
		f.met.Do(func() { close(f.barrier) })
	}
	return nil
}

// twinExtensions lists what can be created on the secondary's server.
func (l *Link) twinExtensions(ctx context.Context) ([]string, error) {
	var names []string
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT name FROM pg_catalog.pg_available_extensions ORDER BY 1`)
		if err != nil {
			return pg.Classify(err, "list extensions")
		}
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return pg.Classify(err, "list extensions")
	})
	return names, err
}

// fills says whether a command fills a materialized view with its owner's rights.
func fills(tag string) bool { return strings.HasSuffix(tag, " MATERIALIZED VIEW") }
