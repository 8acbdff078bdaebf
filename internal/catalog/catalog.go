// Package catalog is the schema twinspan of a linked database: what the agents
// know of a link, kept where it commits with the data, moves with an HA failover
// and lies in the backup.
package catalog

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// Version is the layout that this program reads and writes. A database with a
// higher one belongs to a newer agent and is left alone.
const Version = 1

//go:embed schema.sql
var schemaSQL string

// Querier is a session or a transaction.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Link is one side's record of a link.
type Link struct {
	ID           string
	Name         string
	Agent        string // id of the agent that works on this side
	Peer         string // name of the peer in the agent's book
	PeerAgent    string
	PeerDatabase string
	Role         string
	Phase        string
	Epoch        int64
	Mode         string
	SyncTimeout  int // seconds after which commits in mode sync no longer wait; 0 is never
	// OnIsolation says what a primary does that has lost its twin: serve, or fence= and
	// after how long.
	OnIsolation string
	// OnConflict says what becomes of sessions on the secondary that stand in the way of
	// what is applied: "wait", or "cancel=" and a duration.
	OnConflict string
	// MaxRate is the most bytes of rows a second that a seeding copies; 0 is no limit.
	MaxRate         int64
	Renewing        bool  // the stream is to be begun anew, behind a repair of the twin
	Timeline        int64 // of the primary's log when the stream last began, on a secondary; 0 where unknown
	SettingChange   int64 // grows with every change of Mode, SyncTimeout, OnConflict and MaxRate, on whichever side
	Suspended       bool
	Change          int64 // grows with every suspend and resume, on whichever side
	Deleting        bool
	CreatedDatabase bool   // the database was made for the link
	PrimaryAddress  string // where writers should go; shown by the gate
	SystemID        string // of the primary's server, when the slot was made
	Seeded          bool
	StartLSN        lsn.LSN // first position of the stream
	Operation       string  // the planned failover under way
	Diverged        bool    // a forced failover may have left transactions behind
	// Parted is, after a forced failover, up to where the new primary has the former
	// one's log.
	Parted       lsn.LSN
	LastFailover *Failover
	Problem      *problem.Error
	Notices      []Notice // what the link did by itself, oldest first
	CreatedAt    time.Time
}

// Notice is something that a link did by itself and its owner should know.
type Notice struct {
	At      time.Time `json:"at"`
	Code    string    `json:"code"`
	Subject string    `json:"subject,omitempty"`
	Text    string    `json:"text"`
}

// Present says whether the database has the schema, and refuses one that no agent made
// (schema_taken) and a newer layout.
func Present(ctx context.Context, q Beginner) (have bool, err error) {
	err = pg.InTx(ctx, q, func(tx pgx.Tx) error {
		have, err = presentLocked(ctx, tx)
		return err
	})
	return have, err
}

// Beginner is a session or a transaction that can begin one (in itself).
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// Install makes the schema where it is missing. Run it in a transaction: of two
// that run at once, the second waits for the first, by the name that both want,
// and finds the schema made. A schema of that name that somebody else made is a
// problem with code schema_taken.
func Install(ctx context.Context, q Beginner) error {
	have, err := Present(ctx, q)
	if err != nil || have {
		return err
	}
	err = pgx.BeginFunc(ctx, q, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, schemaSQL+homeSQL+auditSQL+togetherSQL+PrivateSQL)
		return err
	})
	if state := pg.SQLState(err); state == "42P06" || state == "23505" {
		have, err = Present(ctx, q)
		if err == nil && !have {
			err = problem.New(problem.Transient, "schema_vanished", "the schema twinspan came and went while it was made").On("twinspan").
				WithHint("try again")
		}
	}
	return pg.Classify(err, "create the schema twinspan")
}

// Remove drops the schema and everything that hangs on it.
func Remove(ctx context.Context, q Querier) error {
	_, err := q.Exec(ctx, `DROP SCHEMA IF EXISTS twinspan CASCADE`)
	return pg.Classify(err, "drop the schema twinspan")
}

const columns = `id::text, name, agent::text, peer, peer_agent::text, peer_database, role, phase, epoch, mode, suspended, change,
	deleting, created_database, primary_address, system_id, seeded, coalesce(start_lsn::text, '0/0'), problem, notices, created_at,
	sync_timeout, setting_change, on_conflict, on_isolation, max_rate, operation, diverged, coalesce(parted_lsn::text, '0/0'), last_failover, renewing, timeline`

// Insert adds a link. A second one of the same name or id is a conflict.
func Insert(ctx context.Context, q Querier, l *Link) error {
	_, err := q.Exec(ctx, `INSERT INTO twinspan.link (id, name, agent, peer, peer_agent, peer_database, role, phase, epoch, mode,
		created_database, primary_address, sync_timeout, on_conflict, max_rate) VALUES ($1::text::uuid,$2,$3::text::uuid,$4,$5::text::uuid,$6,$7,$8,$9,$10,$11,$12,$13,coalesce(nullif($14, ''), 'wait'),$15)`,
		l.ID, l.Name, l.Agent, l.Peer, l.PeerAgent, l.PeerDatabase, l.Role, l.Phase, l.Epoch, l.Mode, l.CreatedDatabase, l.PrimaryAddress, l.SyncTimeout, l.OnConflict, l.MaxRate)
	if pg.SQLState(err) == "23505" {
		return problem.New(problem.Conflict, "link_exists", "a link of that name or id exists in this database").On(l.Name)
	}
	return pg.Classify(err, "record the link")
}

// Links lists the links of this database that belong to the agent, with "" those of all.
func Links(ctx context.Context, q Querier, agent string) ([]*Link, error) {
	rows, err := q.Query(ctx, `SELECT `+columns+` FROM ONLY twinspan.link WHERE $1::text = '' OR agent = nullif($1::text, '')::uuid ORDER BY name`, agent)
	if err != nil {
		return nil, pg.Classify(err, "read the links")
	}
	links, err := pgx.CollectRows(rows, scan)
	return links, pg.Classify(err, "read the links")
}

// Get reads one link; a missing one is a problem of kind NotFound.
func Get(ctx context.Context, q Querier, id string) (*Link, error) {
	rows, err := q.Query(ctx, `SELECT `+columns+` FROM twinspan.link WHERE id = $1::text::uuid`, id)
	if err != nil {
		return nil, pg.Classify(err, "read the link")
	}
	l, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, problem.New(problem.NotFound, "link_unknown", "the database has no such link").On(id)
	}
	return l, pg.Classify(err, "read the link")
}

func scan(row pgx.CollectableRow) (*Link, error) {
	var l Link
	var trouble, notices, failover []byte
	err := row.Scan(&l.ID, &l.Name, &l.Agent, &l.Peer, &l.PeerAgent, &l.PeerDatabase, &l.Role, &l.Phase, &l.Epoch, &l.Mode,
		&l.Suspended, &l.Change, &l.Deleting, &l.CreatedDatabase, &l.PrimaryAddress, &l.SystemID, &l.Seeded, &l.StartLSN,
		&trouble, &notices, &l.CreatedAt, &l.SyncTimeout, &l.SettingChange, &l.OnConflict, &l.OnIsolation, &l.MaxRate, &l.Operation, &l.Diverged, &l.Parted, &failover, &l.Renewing, &l.Timeline)
	if err != nil {
		return nil, err
	}
	if failover != nil {
		if err := json.Unmarshal(failover, &l.LastFailover); err != nil {
			return nil, err
		}
	}
	if trouble != nil {
		var s stored
		if err := json.Unmarshal(trouble, &s); err != nil {
			return nil, err
		}
		l.Problem = &problem.Error{Kind: s.Kind, Code: s.Code, Subject: s.Subject, Text: s.Text, Hint: s.Hint}
	}
	return &l, json.Unmarshal(notices, &l.Notices)
}

// stored is the form in which a problem lies in the database.
type stored struct {
	Kind    problem.Kind `json:"kind"`
	Code    string       `json:"code"`
	Subject string       `json:"subject,omitempty"`
	Text    string       `json:"text"`
	Hint    string       `json:"hint,omitempty"`
}

// Store writes what changes in a link's life: phase, problem, suspension, whether
// the copy is whole and which failover is under way. The epoch is a fencing token:
// a link whose epoch has moved on is not changed, and the answer is a conflict.
func Store(ctx context.Context, q Querier, l *Link) error {
	trouble, err := encode(l.Problem)
	if err != nil {
		return err
	}
	return update(ctx, q, l, `phase = $3, seeded = $4, suspended = $5, change = $6, problem = $7::text::jsonb, operation = $8, diverged = $9`,
		l.Phase, l.Seeded, l.Suspended, l.Change, trouble, l.Operation, l.Diverged)
}

// encode makes a problem what the database holds of it.
func encode(p *problem.Error) (any, error) {
	if p == nil {
		return nil, nil
	}
	b, err := json.Marshal(stored{p.Kind, p.Code, p.Subject, p.Error(), p.Hint})
	return string(b), err
}

// SetSettings stores what an operator changed of the link: mode and timeout, with the
// number of the change.
func SetSettings(ctx context.Context, q Querier, l *Link) error {
	return update(ctx, q, l, `mode = $3, sync_timeout = $4, setting_change = $5, on_conflict = $6, max_rate = $7, on_isolation = coalesce(nullif($8, ''), 'serve')`,
		l.Mode, l.SyncTimeout, l.SettingChange, l.OnConflict, l.MaxRate, l.OnIsolation)
}

// SetRenewing stores that the stream is to be begun anew.
func SetRenewing(ctx context.Context, q Querier, l *Link) error {
	return update(ctx, q, l, `renewing = true`)
}

// SetTimeline stores the timeline of the primary's log that is followed.
func SetTimeline(ctx context.Context, q Querier, l *Link, timeline int64) error {
	return update(ctx, q, l, `timeline = $3`, timeline)
}

// SetRenewed stores that a secondary's copy, however it was made, is the primary's
// database at a position of a server's log, from which the stream goes on. The
// positions of the seeding, which may be another server's, no longer count.
func SetRenewed(ctx context.Context, q Querier, l *Link, start lsn.LSN, timeline int64, systemID string) error {
	if err := update(ctx, q, l, `start_lsn = $3::text::pg_lsn, system_id = $4, renewing = false, timeline = $5`, start.String(), systemID, timeline); err != nil {
		return err
	}
	_, err := q.Exec(ctx, `UPDATE twinspan.seed_session SET lsn = $2::text::pg_lsn, system_id = $3 WHERE link = $1::text::uuid`, l.ID, start.String(), systemID)
	if err != nil {
		return pg.Classify(err, "store the new start of the stream")
	}
	// Large objects are told by the numbers of transactions, which are a server's own.
	_, err = q.Exec(ctx, `WITH forgotten AS (DELETE FROM twinspan.large_object_range WHERE link = $1::text::uuid)
		UPDATE twinspan.large_object SET since = 0, counters = '', next = NULL WHERE link = $1::text::uuid`, l.ID)
	return pg.Classify(err, "store the new start of the stream")
}

// SetStart stores where the stream begins and which server it comes from.
func SetStart(ctx context.Context, q Querier, l *Link, start lsn.LSN, systemID string) error {
	return update(ctx, q, l, `start_lsn = $3::text::pg_lsn, system_id = $4`, start.String(), systemID)
}

// SetDeleting stores whether the link is being removed.
func SetDeleting(ctx context.Context, q Querier, l *Link, deleting bool) error {
	return update(ctx, q, l, `deleting = $3`, deleting)
}

// Cutover is the Operation of a side that is being removed by a cutover: its gate
// stays shut.
const Cutover = "cutover"

// SetCutover stores that the link is being removed by a cutover.
func SetCutover(ctx context.Context, q Querier, l *Link) error {
	return update(ctx, q, l, `deleting = true, operation = $3`, Cutover)
}

// AddNotices appends to what the link did by itself.
func AddNotices(ctx context.Context, q Querier, l *Link, notices []Notice) error {
	if len(notices) == 0 {
		return nil
	}
	b, err := json.Marshal(notices)
	if err != nil {
		return err
	}
	return update(ctx, q, l, `notices = notices || $3::text::jsonb`, string(b))
}

// Delete removes the link's row, and with it all that hangs on it. Run it in a
// transaction: in the sessions of agents, whose role is replica, nothing cascades,
// so the role is another one for its moment.
func Delete(ctx context.Context, q Querier, id string) error {
	var role string
	err := q.QueryRow(ctx, `SELECT current_setting('session_replication_role')`).Scan(&role)
	replica := role == "replica" // a primary's role need not be one that may change it
	if err == nil && replica {
		_, err = q.Exec(ctx, `SELECT set_config('session_replication_role', 'origin', true)`)
	}
	if err == nil {
		_, err = q.Exec(ctx, `DELETE FROM twinspan.link WHERE id = $1::text::uuid`, id)
	}
	if err == nil && replica {
		_, err = q.Exec(ctx, `SELECT set_config('session_replication_role', $1, true)`, role)
	}
	return pg.Classify(err, "remove the link's record")
}

func update(ctx context.Context, q Querier, l *Link, set string, args ...any) error {
	return updateIf(ctx, q, l, set, `true`, args...)
}

// updateIf is update under a further condition.
func updateIf(ctx context.Context, q Querier, l *Link, set, condition string, args ...any) error {
	tag, err := q.Exec(ctx, `UPDATE twinspan.link SET `+set+` WHERE id = $1::text::uuid AND epoch = $2 AND `+condition,
		append([]any{l.ID, l.Epoch}, args...)...)
	if err != nil {
		return pg.Classify(err, "store the link's state")
	}
	if tag.RowsAffected() != 1 {
		return problem.New(problem.Conflict, "link_moved_on", "the link's record is gone, or the link has changed places meanwhile").On(l.Name)
	}
	return nil
}
