package link

import (
	"context"
	"encoding/json"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/auditor"
	"github.com/twinspan/twinspan/internal/dbroles"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/outofband"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rejoin"
	"github.com/twinspan/twinspan/internal/replay"
	"github.com/twinspan/twinspan/internal/resync"
	"github.com/twinspan/twinspan/internal/schemawatch"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/uncarried"
	"github.com/twinspan/twinspan/internal/upstream"
	"github.com/twinspan/twinspan/internal/verification"
	"github.com/twinspan/twinspan/internal/wire"
)

// Right is what a request of a peer needs to be granted.
type Right struct {
	Operation peer.Operation // "" for nothing
	Direction peer.Direction // "" for either
}

// Request is one that the other side may make of a link.
type Request struct {
	Method string
	Needs  Right
	// Changes says what whoever makes it asks for, behind "asked to"; "" where it changes nothing.
	Changes string
	// Decode reads it, and refuses what is none.
	Decode func(body json.RawMessage) (side.Request, error)
	// Answer answers it, or Answers on a stream; the other is nil.
	Answer  func(ctx context.Context, l *Link, r side.Request) (any, error)
	Answers func(ctx context.Context, l *Link, r side.Request, s *peer.Stream) error
}

// Requests lists every request that the other side may make of a link: a new one has its place
// here, its method, and who answers it. Free are those that tell how the link stands, or bring
// to an end what was begun: two sides that disagree about a right must not disagree about who
// is the primary.
func Requests() []Request {
	var (
		free     = Right{}
		linked   = Right{Operation: peer.OpLink}
		sending  = Right{peer.OpLink, peer.FromHere}
		taking   = Right{peer.OpLink, peer.ToHere}
		changing = Right{Operation: peer.OpFailover}
		bringing = Right{peer.OpRoles, peer.ToHere}
		deleting = Right{Operation: peer.OpDelete}
	)
	verifications, audit, snapshots, roles := (*Link).Verifications, (*Link).Auditor, (*Link).Snapshots, (*Link).Roles
	sequences, objects, replayer := (*Link).Sequences, (*Link).LargeObjects, (*Link).Replayer
	losses, former, primary := (*Link).Losses, (*Link).Former, (*Link).Upstream
	return []Request{
		// How the sides stand.
		answered(MethodReport, free, "", (*Link).handleReport),
		answered(MethodState, free, "", (*Link).handleState),
		done(MethodChange, linked, "suspend the link or let it go on", (*Link).handleChange),
		done(MethodSet, linked, "change settings of the link", (*Link).handleSet),
		done(MethodAccept, linked, "accept problems of the link", (*Link).handleAccept),
		done(replay.MethodSkip, linked, "let the link go on without a schema change", does(replayer, (*replay.Replayer).HandleSkip)),
		done(MethodRepair, taking, "let the link go on by a comparison", (*Link).handleRepair),
		answered(MethodDelete, deleting, "remove this side of the link", (*Link).handleDelete),

		// The first copy.
		answered(upstream.MethodBegin, sending, "", of(primary, (*upstream.Primary).HandleBegin)),
		done(upstream.MethodEnd, free, "", does(primary, (*upstream.Primary).HandleEnd)),
		streamed(upstream.MethodTables, sending, ofStream(primary, (*upstream.Primary).HandleTables)),
		streamed(upstream.MethodSchema, sending, ofStream(primary, (*upstream.Primary).HandleSchema)),
		streamed(upstream.MethodCopy, sending, ofStream(primary, (*upstream.Primary).HandleCopy)),
		streamed(outofband.MethodSequences, sending, ofStream(sequences, (*outofband.Sequences).HandleValues)),
		answered(MethodSeedingTables, free, "", (*Link).handleSeedingTables),

		// The stream, and what is carried beside it.
		streamed(upstream.MethodStream, sending, ofStream(primary, (*upstream.Primary).HandleStream)),
		streamed(resync.MethodRenew, sending, ofStream((*Link).Renewals, (*resync.Primary).HandleRenew)),
		streamed(outofband.MethodPromises, sending, ofStream(sequences, (*outofband.Sequences).HandlePromises)),
		streamed(schemawatch.MethodSign, sending, ofStream((*Link).Schema, (*schemawatch.Watch).HandleSign)),
		streamed(meet.MethodSchemaRead, sending, ofStream(snapshots, (*meet.Primary).HandleSchemaRead)),
		streamed(replay.MethodUnseen, sending, ofStream(replayer, (*replay.Replayer).HandleUnseen)),
		answered(outofband.MethodLargeObjects, linked, "bring large objects", of(objects, (*outofband.LargeObjects).HandleRequest)),
		streamed(outofband.MethodPlanObjects, sending, ofStream(objects, (*outofband.LargeObjects).HandlePlan)),
		streamed(outofband.MethodListObjects, sending, ofStream(objects, (*outofband.LargeObjects).HandleList)),
		streamed(outofband.MethodDescribeObjects, sending, ofStream(objects, (*outofband.LargeObjects).HandleDescribe)),
		streamed(outofband.MethodCopyObjects, sending, ofStream(objects, (*outofband.LargeObjects).HandleCopy)),
		answered(dbroles.MethodRights, sending, "", of(roles, (*dbroles.Keeper).HandleRights)),
		answered(dbroles.MethodShow, free, "", of(roles, (*dbroles.Keeper).HandleShow)),
		answered(dbroles.MethodBring, bringing, "give roles what they lack", of(roles, (*dbroles.Keeper).HandleBring)),
		answered(uncarried.MethodInventory, sending, "", of((*Link).Uncarried, (*uncarried.Keeper).HandleInventory)),
		answered(uncarried.MethodShow, free, "", of((*Link).Uncarried, (*uncarried.Keeper).HandleShow)),

		// Comparisons.
		streamed(meet.MethodSnapshot, sending, ofStream(snapshots, (*meet.Primary).HandleSnapshot)),
		streamed(meet.MethodRead, sending, ofStream(snapshots, (*meet.Primary).HandleRead)),
		answered(verification.MethodStart, linked, "verify the link", of(verifications, (*verification.Verifications).HandleStart)),
		answered(verification.MethodShow, free, "", of(verifications, (*verification.Verifications).HandleShow)),
		answered(verification.MethodCancel, linked, "end the verification", of(verifications, (*verification.Verifications).HandleCancel)),
		answered(auditor.MethodShow, free, "", of(audit, (*auditor.Auditor).HandleShow)),
		answered(auditor.MethodStart, linked, "begin a pass of the audit", of(audit, (*auditor.Auditor).HandleStart)),

		// Changes of places.
		answered(MethodFailover, changing, "change places", (*Link).handleFailover),
		answered(MethodFailoverShow, free, "", (*Link).handleFailoverShow),
		answered(MethodFailoverCancel, free, "give up the change of places", (*Link).handleFailoverCancel),
		done(MethodFailoverGo, free, "", (*Link).handleFailoverGo),
		answered(MethodFailoverOutcome, free, "", (*Link).handleFailoverOutcome),
		answered(MethodFailoverPlan, free, "", (*Link).handleFailoverPlan),
		answered(MethodFailoverAssess, free, "", (*Link).handleFailoverAssess),
		answered(MethodFailoverStage, changing, "", (*Link).handleFailoverStage),
		done(MethodFailoverBrake, free, "", (*Link).handleFailoverBrake),
		streamed(MethodFailoverHold, changing, (*Link).handleFailoverHold),
		done(MethodFailoverTurn, free, "", (*Link).handleFailoverTurn),
		answered(MethodCutover, changing, "remove this side after a cutover", (*Link).handleCutover),

		// What a forced one has left behind.
		answered(rejoin.MethodLost, free, "", of(losses, (*rejoin.Losses).HandleShow)),
		streamed(rejoin.MethodPage, sending, ofStream(losses, (*rejoin.Losses).HandlePage)),
		done(rejoin.MethodDiscard, changing, "forget what was lost", does(losses, (*rejoin.Losses).HandleDiscard)),
		answered(rejoin.MethodPlan, free, "", of(former, (*rejoin.Former).HandlePlan)),
		done(rejoin.MethodBegin, changing, "rejoin", does(former, (*rejoin.Former).HandleBegin)),
	}
}

// answered is a request that has an answer.
func answered[R side.Request, A any](method string, needs Right, changes string, f func(*Link, context.Context, R) (A, error)) Request {
	return Request{Method: method, Needs: needs, Changes: changes, Decode: decode[R],
		Answer: func(ctx context.Context, l *Link, r side.Request) (any, error) { return f(l, ctx, r.(R)) }}
}

// done is a request whose answer is that it was done.
func done[R side.Request](method string, needs Right, changes string, f func(*Link, context.Context, R) error) Request {
	return Request{Method: method, Needs: needs, Changes: changes, Decode: decode[R],
		Answer: func(ctx context.Context, l *Link, r side.Request) (any, error) { return nil, f(l, ctx, r.(R)) }}
}

// streamed is a request that is answered on a stream.
func streamed[R side.Request](method string, needs Right, f func(*Link, context.Context, R, *peer.Stream) error) Request {
	return Request{Method: method, Needs: needs, Decode: decode[R],
		Answers: func(ctx context.Context, l *Link, r side.Request, s *peer.Stream) error { return f(l, ctx, r.(R), s) }}
}

// of has what belongs to a link answer.
func of[T, R, A any](part func(*Link) T, f func(T, context.Context, R) (A, error)) func(*Link, context.Context, R) (A, error) {
	return func(l *Link, ctx context.Context, r R) (A, error) { return f(part(l), ctx, r) }
}

func does[T, R any](part func(*Link) T, f func(T, context.Context, R) error) func(*Link, context.Context, R) error {
	return func(l *Link, ctx context.Context, r R) error { return f(part(l), ctx, r) }
}

func ofStream[T, R any](part func(*Link) T, f func(T, context.Context, R, *peer.Stream) error) func(*Link, context.Context, R, *peer.Stream) error {
	return func(l *Link, ctx context.Context, r R, s *peer.Stream) error { return f(part(l), ctx, r, s) }
}

func decode[R side.Request](body json.RawMessage) (side.Request, error) {
	var r R
	if err := wire.Decode(body, &r, wire.Room(len(body))); err != nil {
		return nil, problem.Wrap(err, problem.Invalid, "request_invalid", "read the peer's request")
	}
	return r, nil
}

// LinkID implements side.Request.
func (r ChangeRequest) LinkID() string { return r.ID }

// LinkID implements side.Request.
func (r SettingsRequest) LinkID() string { return r.ID }

// LinkID implements side.Request.
func (r TurnRequest) LinkID() string { return r.ID }

func (l *Link) handleDelete(ctx context.Context, _ Reference) (api.DeletedSide, error) {
	return l.remove(ctx, l.lastChanges(ctx, l.side.Record()), catalogDeleting)
}

func (l *Link) handleFailoverOutcome(ctx context.Context, r OutcomeRequest) (Outcome, error) {
	return l.place.Outcome(ctx, l, r.Together)
}
