package link

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/wire"
)

// MethodFailoverBrake asks the primary to slow writers down.
const MethodFailoverBrake = "failover.brake"

// BrakeRequest says by how much.
type BrakeRequest struct {
	OperationRequest
	Delay time.Duration `json:"delay"`
}

// MethodFailoverTurn tells the old primary that the failover is decided.
const MethodFailoverTurn = "failover.turn"

// AssessRequest asks the primary what stands against a failover.
type AssessRequest struct {
	Reference
	Cutover bool `json:"cutover"` // the primary need not become a secondary
}

// OperationRequest names a planned failover.
type OperationRequest struct {
	Reference
	Operation string `json:"operation"`
}

// HoldRequest asks for the gate, and for a hold.
type HoldRequest struct {
	OperationRequest
	DrainSeconds float64 `json:"drainSeconds"`
}

func (r HoldRequest) drain() time.Duration {
	return time.Duration(r.DrainSeconds * float64(time.Second))
}

// HoldOrder is what the driver asks of a primary that holds its writers.
type HoldOrder struct {
	Do string `json:"do"`
}

const orderFence = "fence"

// HoldAnswer answers the request, and each order.
type HoldAnswer struct {
	Ended int `json:"ended"` // transactions that did not finish in time
	// LargeObjects says whether there are any, once the primary is fenced.
	LargeObjects bool `json:"largeObjects,omitempty"`
}

// TurnRequest tells a fenced primary how the new one stands.
type TurnRequest struct {
	ID       string   `json:"id"`
	Standing Standing `json:"standing"`
}

// fencePatience is how long writers wait at the gate of a primary that is fenced and
// does not learn what became of the failover. Then they are refused.
const fencePatience = time.Minute

func against(code, subject, title, hint string) api.Problem {
	return api.Problem{Code: code, Severity: api.Blocks, Subject: subject, Title: title, Hint: hint}
}

// handleFailoverAssess lists what stands against a failover on the primary.
func (l *Link) handleFailoverAssess(ctx context.Context, request AssessRequest) ([]api.Problem, error) {
	if err := l.side.SameEpoch(request.Reference); err != nil {
		return nil, err
	}
	if err := l.sameAgents(ctx); err != nil {
		return nil, err
	}
	return l.obstacles(ctx, request.Cutover)
}

// obstacles lists what stands against a planned failover on the primary; with a cutover
// it need not become a secondary.
func (l *Link) obstacles(ctx context.Context, cutover bool) ([]api.Problem, error) {
	list := []api.Problem{}
	if r := l.side.Record(); cutoverDue(r) {
		p := cutoverPending(r)
		list = append(list, against(p.Code, p.Subject, p.Text, p.Hint))
	}
	err := l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var major int
		var gid, other, subscription string
		var super bool
		err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int / 10000,
			coalesce((SELECT min(gid) FROM pg_prepared_xacts WHERE database = current_database()), ''),
			coalesce((SELECT min(name) FROM twinspan.link WHERE role = 'secondary'), ''),
			coalesce((SELECT min(subname::text) FROM pg_subscription
				WHERE subenabled AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())), ''),
			(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)`).Scan(&major, &gid, &other, &subscription, &super)
		if err != nil {
			return pg.Classify(err, "look at the primary")
		}
		if major < oldestSecondary && !cutover {
			list = append(list, against("secondary_too_old", "", "the primary's server is too old to become a secondary", "fail over with --cutover, which removes the link"))
		}
		if !super {
			list = append(list, against("not_superuser", l.dsn.User(), "the role of the primary's agent is no superuser: it can neither hold writers nor apply changes later",
				"make it one for the failover: ALTER ROLE ... SUPERUSER"))
		}
		if gid != "" {
			list = append(list, against("transaction_prepared", gid, "the prepared transaction "+gid+" is not finished", "finish it: COMMIT PREPARED or ROLLBACK PREPARED"))
		}
		if other != "" {
			list = append(list, against("database_is_secondary", other, "the primary's database is itself the secondary of link "+other, "fail over that link, or remove it"))
		}
		if subscription != "" {
			list = append(list, against("subscription_enabled", subscription, "the subscription "+subscription+" of the primary writes past the gate", "disable it first: ALTER SUBSCRIPTION ... DISABLE"))
		}
		return nil
	})
	return list, err
}

// oldestSecondary is the first major version that can be a secondary.
const oldestSecondary = 14

// handleFailoverStage builds the gate, which lets everybody through for now.
func (l *Link) handleFailoverStage(ctx context.Context, request HoldRequest) (answer HoldAnswer, err error) {
	if err := l.side.SameEpoch(request.Reference); err != nil {
		return answer, err
	}
	if l.side.Record().Operation != request.Operation {
		if err := l.beginAs(ctx, request.Operation); err != nil {
			return answer, err
		}
	}
	if err := l.lockFurniture(ctx); err != nil {
		return answer, err
	}
	defer l.furniture.Unlock()
	err = l.withGateSession(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		answer.Ended, err = gate.Stage(ctx, conn, request.drain())
		return err
	})
	return answer, err
}

// handleFailoverBrake has writers begin later, until the failover ends.
func (l *Link) handleFailoverBrake(ctx context.Context, request BrakeRequest) error {
	if err := l.side.SameEpoch(request.Reference); err != nil {
		return err
	}
	return l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if r := l.side.Record(); r.Operation != request.Operation || role.Phase(r.Phase) != role.FailingOver {
			return errMovedOn
		}
		return gate.Brake(ctx, conn, request.Delay)
	})
}

// beginAs begins a failover on the primary. One that was left over is done with
// first: that the other side begins another says that it will not decide that one.
func (l *Link) beginAs(ctx context.Context, operation string) error {
	if phase := role.Phase(l.side.Record().Phase); phase == role.FailingOver || phase == role.Fenced {
		if err := l.contact(ctx); err != nil {
			return err
		}
	}
	return l.side.Update(ctx, func(r *catalog.Link) error {
		next, err := role.Step(side.State(*r), role.Begin)
		if err != nil {
			return err
		}
		next.Operation = operation
		side.Put(next, r)
		return nil
	})
}

// handleFailoverHold keeps writers waiting while the stream lives, writes the
// barrier behind the last of them, and fences this side on order.
func (l *Link) handleFailoverHold(ctx context.Context, request HoldRequest, s *peer.Stream) error {
	if err := l.side.SameEpoch(request.Reference); err != nil {
		return err
	}
	if r := l.side.Record(); r.Operation != request.Operation || role.Phase(r.Phase) != role.FailingOver {
		return errMovedOn
	}
	hold, err := gate.Take(ctx, l.dsn, l.Name(), request.drain())
	if err != nil {
		return err
	}
	defer hold.Release(context.WithoutCancel(ctx))
	subscribed, err := gate.Subscribed(ctx, hold.Conn())
	if err == nil && len(subscribed) > 0 {
		err = problem.New(problem.Conflict, "subscription_enabled", "the subscription %s of the primary writes past the gate", subscribed[0]).On(subscribed[0]).
			WithHint("disable it first: ALTER SUBSCRIPTION ... DISABLE")
	}
	if err != nil {
		return err
	}
	l.log.Info("writers held", "drained", time.Since(hold.Since), "ended", hold.Ended)
	if err := l.aloneChanging(ctx, hold.Conn()); err != nil {
		return err
	}
	_, err = hold.Conn().Exec(ctx, `SELECT twinspan.say('barrier', jsonb_build_object('operation', $1::text))`, request.Operation)
	if err != nil {
		return pg.Classify(err, "write the barrier")
	}
	if err := flow.WriteResult(s, HoldAnswer{Ended: hold.Ended}); err != nil {
		return err
	}
	err = l.takeOrders(ctx, request, s, hold)
	l.awaitOutcome()
	return err
}

// aloneChanging says whether no other link has made this database a secondary, or is
// about to, since the failover began. Of several whose failovers run at once, one gets
// the hold first; the others find that here.
func (l *Link) aloneChanging(ctx context.Context, conn *pgx.Conn) error {
	var other string
	err := conn.QueryRow(ctx, `SELECT coalesce(min(name), '') FROM twinspan.link WHERE id <> $1::text::uuid AND (role = 'secondary' OR phase = 'fenced')`, l.ID()).Scan(&other)
	if err != nil {
		return pg.Classify(err, "look at the other links of the database")
	}
	if other != "" {
		return problem.New(problem.Conflict, "database_is_secondary", "the primary's database is itself the secondary of link %s", other).On(other).
			WithHint("fail over that link, or remove it")
	}
	return nil
}

// takeOrders does what the driver orders until it closes the stream.
func (l *Link) takeOrders(ctx context.Context, request HoldRequest, s *peer.Stream, hold *gate.Hold) error {
	defer context.AfterFunc(ctx, func() { s.Close() })()
	for {
		_, body, err := s.ReadFrame()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var order HoldOrder
		if err := wire.Decode(body, &order, wire.Room(len(body))); err != nil || order.Do != orderFence {
			return problem.New(problem.Invalid, "request_invalid", "the driver of the failover orders %q", order.Do)
		}
		if err := l.fence(ctx, request.Operation, hold); err != nil {
			return err
		}
		ended := hold.Ended
		if err := hold.Settle(ctx, l.dsn, l.Name(), request.drain()); err != nil {
			return err
		}
		answer := HoldAnswer{Ended: hold.Ended - ended}
		if answer.LargeObjects, err = anyLargeObjects(ctx, hold.Conn()); err != nil {
			return err
		}
		if err := flow.WriteResult(s, answer); err != nil {
			return err
		}
	}
}

// anyLargeObjects says whether a database has large objects.
func anyLargeObjects(ctx context.Context, conn *pgx.Conn) (some bool, err error) {
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)`).Scan(&some)
	return some, pg.Classify(err, "look for large objects")
}

// fence makes this side refuse writes, durably, while nobody writes: in the session
// that holds, so that it fails if anybody could have.
func (l *Link) fence(ctx context.Context, operation string, hold *gate.Hold) error {
	mine := l.side.Record()
	if mine.Operation != operation {
		return errMovedOn
	}
	err := l.side.Write(ctx, func(r *catalog.Link) error { return stepFrom(r, mine, role.Fence) },
		func(ctx context.Context, _ *pgx.Conn, _, next *catalog.Link) error {
			if err := gate.Bar(ctx, hold.Conn()); err != nil {
				return err
			}
			return pg.InTx(ctx, hold.Conn(), func(tx pgx.Tx) error {
				if err := hold.Holds(ctx, tx); err != nil {
					return err
				}
				return catalog.Store(ctx, tx, next)
			})
		})
	if err != nil {
		return err
	}
	// New sessions are sent to the other side, which lets them in already.
	return gate.ReadOnlyNow(ctx, hold.Conn())
}

// awaitOutcome keeps the writers waiting until it is known whether they may go on
// here, but not for ever.
func (l *Link) awaitOutcome() {
	l.mu.Lock()
	era := l.era
	l.mu.Unlock()
	ctx, stop := context.WithTimeout(era, fencePatience)
	defer stop()
	for {
		r, changed := l.side.Watch()
		if role.Phase(r.Phase) != role.Fenced || role.Role(r.Role) != role.Primary {
			return
		}
		if err := l.contact(ctx); err != nil {
			l.log.Debug("the outcome of the failover is not known yet", "err", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-time.After(firstPause):
		}
	}
}

// handleFailoverTurn takes the news that a failover is decided.
func (l *Link) handleFailoverTurn(ctx context.Context, request TurnRequest) error {
	if err := l.side.Ascertain(ctx); err != nil {
		return err
	}
	mine := l.side.Record()
	if request.Standing.State.Epoch <= mine.Epoch {
		return nil // what is not asked for may be old, unless it is of a later epoch
	}
	return l.learn(ctx, mine, request.Standing)
}
