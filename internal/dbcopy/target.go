package dbcopy

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/largeobject"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sequence"
	"github.com/twinspan/twinspan/internal/sqlname"
	"github.com/twinspan/twinspan/internal/turns"
)

// Target is where a copy is made. Server, Name, Agent, ID and Log are required. It is for
// one copy.
type Target struct {
	Server *pg.DSN // the instance, through its maintenance database; the role is a superuser
	Name   string  // of the new database
	Agent  string  // the id of the agent that makes it, a UUID: Sweep goes by it
	ID     string  // of this copy, a UUID
	// Workers is how many parts of tables are copied, and indexes built, at once; 0 lets
	// the engines choose.
	Workers int
	Places  *turns.Pool // what the workers of all copies of an agent share; may be nil
	// Storage says what is left of the instance's storage; nil, or its answer is, where nothing but the disk bounds it.
	Storage func() *assess.Storage
	// MaxRate is the most bytes of rows a second; 0 is no limit.
	MaxRate int64
	Log     *slog.Logger
	// Progress may be nil. It is called from one goroutine at a time.
	Progress func(Progress)
	// Patience is how long a step is tried again that fails for a reason that passes, such
	// as a connection that broke, counted from the last progress; 0 is two minutes.
	Patience time.Duration

	source   Source
	draft    string
	dsn      *pg.DSN // of the draft
	progress Progress
	moved    time.Time
	roles    []string
}

// usualPatience is Patience where none is given.
const usualPatience = 2 * time.Minute

// Copy makes the copy. When it fails nothing is left, or, when the server cannot be
// reached any more, what Sweep drops. It fails with database_exists when the name is
// taken, with space_short when there is no room, with table_changed when a table
// cannot be read at the moment any more, and with session_lost when the moment is gone:
// after the last two a copy of a new source may succeed.
func (t *Target) Copy(ctx context.Context, source Source) (Result, error) {
	t.source, t.moved = source, time.Now()
	t.draft = Draft(t.Agent, t.ID)
	t.dsn = t.Server.WithDatabase(t.draft)
	result, err := t.copy(ctx)
	if err == nil {
		return result, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	cleaning, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer stop()
	if dropped := drop(cleaning, t.Server, t.draft, t.Log); dropped != nil {
		t.Log.Warn("an unfinished copy is still there, and is dropped later", "database", t.draft, "err", dropped)
	}
	return result, forCopy(err)
}

func (t *Target) copy(ctx context.Context) (Result, error) {
	origin := t.source.Origin()
	result := Result{Origin: origin}
	t.step("looking at the server")
	if err := t.check(ctx, origin); err != nil {
		return result, err
	}
	t.step("creating the database")
	if err := t.make(ctx, origin); err != nil {
		return result, err
	}
	structure := &schema.Target{DSN: t.dsn, Link: t.ID, Name: session, Workers: t.Workers, Log: t.Log, Aside: gate.AsideSQL, Progress: func(schema.Progress) {
		t.moved = time.Now()
	}}
	rows := t.rows(structure)
	objects := &largeobject.Target{DSN: t.dsn, Link: t.ID, Name: session, Remote: t.source.Objects(), Workers: t.Workers, Log: t.Log,
		Roles: t.noteRoles}
	steps := []struct {
		name string
		do   func() error
	}{
		{"copying tables", func() error { _, err := rows.Copy(ctx); return err }},
		{"building indexes and constraints", func() error { return structure.BuildRest(ctx) }},
		{"copying large objects", func() error {
			done, err := objects.Pass(ctx, true)
			result.Objects = done.Objects
			return err
		}},
		{"setting sequences", func() error { return t.setSequences(ctx) }},
		{"gathering statistics", func() error { return structure.Analyze(ctx) }},
		{"giving it what belongs to the database", func() error {
			left, err := structure.SetProperties(ctx)
			for _, p := range left {
				result.Left = append(result.Left, p.Name+": "+p.Reason)
			}
			return err
		}},
	}
	for _, s := range steps {
		if err := t.insist(ctx, s.name, s.do); err != nil {
			return result, err
		}
	}
	t.step("giving it its name")
	left, err := t.free(ctx)
	result.Left = append(result.Left, left...)
	if err != nil {
		return result, err
	}
	if err := t.name(ctx, origin); err != nil {
		return result, err
	}
	slices.Sort(t.roles)
	result.Roles = slices.Compact(t.roles)
	t.Log.Info("database copied", "database", t.Name, "from", origin.Database, "lsn", origin.Position, "exact", origin.Exact, "objects", result.Objects)
	return result, nil
}

// session is the name of the sessions of a copy, on both servers.
const session = "copy"

// step says what is being done.
func (t *Target) step(name string) {
	t.progress.Step = name
	t.tell()
}

func (t *Target) tell() {
	if t.Progress != nil {
		t.Progress(t.progress)
	}
}

// insist does a step, again and again where what stops it may pass. Every step goes on
// where it was, for the engines note what is done.
func (t *Target) insist(ctx context.Context, name string, do func() error) error {
	patience := t.Patience
	if patience == 0 {
		patience = usualPatience
	}
	t.step(name)
	t.moved = time.Now()
	for {
		err := do()
		if err == nil || ctx.Err() != nil || !passing(err) || time.Since(t.moved) > patience {
			return err
		}
		t.Log.Info("copy interrupted, it is tried again", "database", t.Name, "step", name, "err", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

// passing says whether an error is one that may pass while the moment lasts. A disk that
// is full does not get emptier while a half-made copy lies on it.
func passing(err error) bool {
	switch problem.CodeOf(err) {
	case "session_lost", "table_changed", "disk_full", "right_missing":
		return false
	}
	return problem.Retry(err)
}

// rows is the half of the copy of rows that writes.
func (t *Target) rows(structure *schema.Target) *seed.Target {
	target := &seed.Target{
		DSN: t.dsn, Link: t.ID, Name: session, Remote: held{t.source}, Workers: t.Workers, Places: t.Places, Log: t.Log,
		Prepare: func(ctx context.Context, _ string) error {
			t.step("creating the schema")
			made, err := structure.Prepare(ctx, t.schema)
			if err != nil {
				return err
			}
			t.roles = append(t.roles, made...)
			if err := structure.SetSettings(ctx); err != nil {
				return err
			}
			t.step("copying tables")
			return nil
		},
		Identity: structure.BuildIdentity,
		Progress: func(p seed.Progress) {
			if p.BytesDone > t.progress.BytesDone || p.TablesDone > t.progress.TablesDone {
				t.moved = time.Now()
			}
			t.progress.Progress = p
			t.tell()
		},
	}
	if t.MaxRate > 0 {
		target.MaxRate = func() int64 { return t.MaxRate }
	}
	return target
}

// schema is the source's structure, with the owner of the database among its roles: what
// is missing is made with the others.
func (t *Target) schema(ctx context.Context) (*schema.Dump, error) {
	dump, err := t.source.Schema(ctx)
	if err != nil {
		return nil, err
	}
	if owner := t.source.Origin().Owner; !slices.Contains(dump.Roles, owner) {
		dump.Roles = append(dump.Roles, owner)
	}
	return dump, nil
}

// noteRoles notes roles that were made beside the schema's, for Sweep.
func (t *Target) noteRoles(ctx context.Context, made []string) error {
	t.roles = append(t.roles, made...)
	conn, err := t.dsn.Connect(ctx, pg.Session{Name: session + "/roles", Apply: true})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, `INSERT INTO twinspan.seed_entry (link, number, section, kind, schema_name, name, spec, sql, done)
		SELECT $1::text::uuid, (SELECT coalesce(max(number), 0) FROM twinspan.seed_entry) + i, 'pre-data', 'ROLE', '', name, '{}', '', true
		  FROM pg_catalog.unnest($2::text[]) WITH ORDINALITY AS made (name, i)`, t.ID, made)
	return pg.Classify(err, "note roles that were made")
}

// held lets a Source be read as the one session of a seeding. When another is wanted,
// because a table cannot be had or the moment is gone, there is none.
type held struct{ source Source }

// Begin implements seed.Remote.
func (h held) Begin(_ context.Context, r seed.BeginRequest) (seed.Begun, error) {
	begun := h.source.Origin().Begun
	if r.Not == begun.Token {
		return begun, problem.New(problem.Conflict, "table_changed", "a table was truncated, rewritten or dropped while it was copied")
	}
	return begun, nil
}

// Tables implements seed.Remote.
func (h held) Tables(ctx context.Context, _ string) ([]seed.Table, error) {
	return h.source.Tables(ctx)
}

// Copy implements seed.Remote.
func (h held) Copy(ctx context.Context, _ string, r seed.CopyRequest, w io.Writer) (int64, error) {
	return h.source.Copy(ctx, r, w)
}

// End implements seed.Remote. What else has to be read is read at the same moment.
func (h held) End(context.Context, string) error { return nil }

func (t *Target) setSequences(ctx context.Context) error {
	list, err := t.source.Sequences(ctx)
	if err != nil {
		return err
	}
	conn, err := t.dsn.Connect(ctx, pg.Session{Name: session + "/sequences", Apply: true})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	missing, err := sequence.Set(ctx, conn, list)
	if len(missing) > 0 {
		// Made after the moment, or altered since: the copy has them as they were defined.
		t.Log.Info("sequences of the source that the copy does not have", "database", t.Name, "sequences", len(missing), "first", missing[0].String())
	}
	return err
}

// make makes the database under its temporary name, with what the engines note.
func (t *Target) make(ctx context.Context, origin Origin) error {
	server, err := t.Server.Connect(ctx, pg.Session{Name: session + "/create"})
	if err != nil {
		return err
	}
	defer server.Close(context.WithoutCancel(ctx))
	if err := CreateDatabase(ctx, server, t.draft, origin.Source); err != nil {
		return err
	}
	// It is the agent's role's until the end, so that this keeps its later owner out, too.
	if _, err := server.Exec(ctx, `REVOKE CONNECT ON DATABASE `+sqlname.Quote(t.draft)+` FROM PUBLIC`); err != nil {
		return pg.Classify(err, "keep others out of the unfinished copy")
	}
	conn, err := t.dsn.Connect(ctx, pg.Session{Name: session + "/create", Apply: true})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if err := catalog.Install(ctx, tx); err != nil {
			return err
		}
		// No agent takes it for a link of its own: it is of no agent.
		record := catalog.Link{ID: t.ID, Name: session, Agent: nobody, PeerAgent: nobody, Role: "secondary", Phase: "seeding", Mode: "async"}
		if err := catalog.Insert(ctx, tx, &record); err != nil {
			return err
		}
		return gate.MakeAside(ctx, tx)
	})
}

// nobody is the id of no agent.
const nobody = "00000000-0000-0000-0000-000000000000"
