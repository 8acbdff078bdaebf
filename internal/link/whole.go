package link

import (
	"time"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

// wholePause is how long large transactions come at their commit after one could not
// come before it.
const wholePause = 30 * time.Minute

// errStreamAgain ends a stream in which transactions come at their commit.
var errStreamAgain = problem.New(problem.Transient, "stream_again", "large transactions can come before their commit again")

// withoutBlocks looks at what ended a stream. Where it would not have without
// transactions that come before their commit, the next one is asked for without:
// then nothing stops for it, or the same end is true.
func (l *Link) withoutBlocks(in *flow.Receiver, applied lsn.LSN, err error) error {
	if !in.Blocks() || err == nil {
		return err
	}
	cause := problem.As(err)
	if received := problem.As(in.Err()); received != nil && (received.Code == "spill_full" || received.Code == "blocks_refused") {
		cause = received
	}
	switch kind := cause.Kind; {
	case cause.Code == "spill_full":
		l.side.Warn(cause.Code, cause)
	case cause.Code == "blocks_refused":
	case in.LastWhole() > applied && (kind == problem.Diverged || kind == problem.Internal):
	default:
		return err
	}
	l.mu.Lock()
	l.live.wholeUntil = time.Now().Add(wholePause)
	l.mu.Unlock()
	l.log.Warn("large transactions come at their commit", "code", cause.Code, "err", cause, "dur", wholePause)
	return problem.Wrap(cause, problem.Transient, "blocks_refused", "a transaction cannot come before its commit")
}

// wantsBlocks says whether the next stream asks for large transactions before their
// commit.
func (l *Link) wantsBlocks() bool {
	l.mu.Lock()
	wants := !time.Now().Before(l.live.wholeUntil)
	if wants {
		l.live.wholeUntil = time.Time{}
	}
	l.mu.Unlock()
	if wants {
		l.side.Warn("spill_full", nil)
	}
	return wants
}

// unspill ends a stream without blocks when its time is over and everything that has
// come is applied.
func (l *Link) unspill(in *flow.Receiver, status apply.Status) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if in.Blocks() || time.Now().Before(l.live.wholeUntil) || status.Applied < in.Received() {
		return nil
	}
	return errStreamAgain
}
