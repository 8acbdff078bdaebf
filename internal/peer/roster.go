package peer

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// maxSessions bounds the sessions with one peer: the current one, and those that finish
// what was begun on them.
const maxSessions = 4

// contact is what the endpoint has with one peer.
type contact struct {
	sessions []*session // oldest first
	current  *session   // where new streams are opened
	since    time.Time  // when the peer became connected
	problem  error      // why the last attempt to dial failed
	knock    error      // that somebody has shown another key in the peer's name
	knocked  time.Time  // when that was
}

// knockMemory is how long a knock is shown in the place of why dialling fails.
const knockMemory = 30 * time.Second

// why says why there is no connection.
func (c *contact) why() error {
	if c.knock != nil && time.Since(c.knocked) < knockMemory {
		return c.knock
	}
	return c.problem
}

// Which of several sessions is used is decided by one side, the one with the lower agent
// id: always the newest that it has seen established. It says so on that session (adopt),
// and on the one before (retire), which ends when its last stream does. So two agents
// that dial each other at the same moment agree, and an agent that comes back while its
// old connection still looks alive is not refused.

// decides says whether this side chooses among the sessions with the peer.
func (s *session) decides() bool { return s.endpoint.Identity.AgentID() < s.theirs.Agent }

func (e *Endpoint) contactLocked(peer string) *contact {
	c := e.contacts[peer]
	if c == nil {
		c = &contact{}
		e.contacts[peer] = c
	}
	return c
}

// admit makes a session known. On the side that decides, it is used from now on.
func (e *Endpoint) admit(s *session) error {
	e.mu.Lock()
	p, ok := e.Book.Get(s.peer)
	if !ok || !p.trusts(s.key()) {
		e.mu.Unlock()
		return unknownPeer(s.peer)
	}
	c := e.contactLocked(s.peer)
	if other := c.otherProcessLocked(s, e.times().ping*3/2); other != nil {
		e.mu.Unlock()
		return s.refuse(problem.New(problem.Transient, "agent_twice", "another agent with the identity of %s is connected with %s, from %s", s.peer, e.name(), other.conn.RemoteAddr()).On(s.peer).
			WithHint("stop one of the two: an agent's directory must not be copied, nor its machine with it; this one is let in when the other is gone"))
	}
	c.sessions = append(c.sessions, s)
	c.problem, c.knock = nil, nil
	surplus := c.surplusLocked(s)
	var order order
	if s.decides() {
		e.adoptions++
		order.boot, order.seq = e.boot.UnixNano(), e.adoptions
	}
	e.stirLocked()
	e.mu.Unlock()
	for _, other := range surplus {
		other.end(errReplaced)
	}
	if order.seq == 0 {
		return nil
	}
	if err := s.send(frameAdopt, binary.BigEndian.AppendUint64(nil, order.seq)); err != nil {
		e.depart(s)
		return err
	}
	e.use(s, order)
	return nil
}

// otherProcessLocked returns the session of another process of the peer that has been heard of
// lately. One that was ended without a word makes room as soon as its silence tells.
func (c *contact) otherProcessLocked(s *session, lately time.Duration) *session {
	for _, other := range c.sessions {
		if other.theirs.Boot != s.theirs.Boot && other.ctx.Err() == nil && other.link.silence() < lately {
			return other
		}
	}
	return nil
}

// refuse tells the other side why it is not let in.
func (s *session) refuse(why *problem.Error) error {
	s.log.Warn("session refused", "address", s.conn.RemoteAddr().String(), "code", why.Code, "err", why)
	if err := s.send(frameError, encodeFault(why)); err != nil {
		s.log.Debug("refusal not sent", "err", err)
	}
	return why
}

// surplusLocked returns the sessions to end because s came: those of a process of the
// peer that is gone, and the oldest when there are too many.
func (c *contact) surplusLocked(s *session) []*session {
	var gone []*session
	for _, other := range c.sessions {
		if other.theirs.Boot < s.theirs.Boot || len(c.sessions)-len(gone) > maxSessions && other != s && other != c.current {
			gone = append(gone, other)
		}
	}
	return gone
}

// adopted obeys the side that decides.
func (e *Endpoint) adopted(s *session, seq uint64) error {
	if s.decides() || seq == 0 {
		return protocolError("the peer adopts a session, which is not its part")
	}
	e.use(s, order{boot: s.theirs.Boot, seq: seq})
	return nil
}

// use makes a session the current one, unless a later one is already.
func (e *Endpoint) use(s *session, o order) {
	e.mu.Lock()
	c := e.contactLocked(s.peer)
	s.mu.Lock()
	s.order = o
	s.mu.Unlock()
	old := c.current
	if !slices.Contains(c.sessions, s) {
		e.mu.Unlock()
		return
	}
	if old != nil && old.adoption().after(o) {
		e.mu.Unlock()
		if s.decides() { // the later one, which was quicker, had nothing to retire
			e.running.Go(s.retire)
		}
		return
	}
	c.current = s
	if old == nil {
		c.since = time.Now()
		e.tellLocked(Event{Peer: s.peer, Connected: true, At: c.since})
	}
	e.stirLocked()
	e.mu.Unlock()
	s.log.Info("peer connected", "address", s.conn.RemoteAddr().String(), "dialled", s.dialled, "product", s.theirs.Product)
	e.wakeRotation()
	if old != nil && s.decides() {
		// Not here: the old connection may be one that takes no more bytes.
		e.running.Go(old.retire)
	}
}

// retire tells the peer that another session took this one's place.
func (s *session) retire() {
	s.mu.Lock()
	s.retiring = true
	s.mu.Unlock()
	if err := s.send(frameRetire, nil); err != nil {
		s.log.Debug("session not retired", "err", err)
	}
}

// retire answers the side that decides once no stream will be opened on the session any
// more: another one is in use here too. Until then the answer waits.
func (e *Endpoint) retire(s *session) error {
	if s.decides() {
		return protocolError("the peer retires a session, which is not its part")
	}
	e.mu.Lock()
	current := e.contactLocked(s.peer).current
	e.mu.Unlock()
	if current != s {
		return s.confirmRetirement()
	}
	e.running.Go(func() {
		for {
			e.mu.Lock()
			current, stirred := e.contactLocked(s.peer).current, e.stirred
			e.mu.Unlock()
			if current != s {
				if err := s.confirmRetirement(); err != nil {
					s.log.Debug("session not retired", "err", err)
				}
				return
			}
			select {
			case <-s.ctx.Done():
				return
			case <-stirred:
			}
		}
	})
	return nil
}

// confirmRetirement answers after the last stream that this side opens.
func (s *session) confirmRetirement() error {
	s.leave()
	return s.send(frameRetired, nil)
}

// leave makes sure that this side opens no more streams on the session.
func (s *session) leave() {
	s.opening.Lock()
	defer s.opening.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
}

// adoption returns the place of the session in the order of adoptions.
func (s *session) adoption() order {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.order
}

// depart forgets a session that ended. If it was the current one, the latest of the others
// that was adopted takes over, and gets its life back if it was about to retire.
func (e *Endpoint) depart(s *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.contactLocked(s.peer)
	c.sessions = slices.DeleteFunc(c.sessions, func(other *session) bool { return other == s })
	if c.current == s {
		c.current = nil
		for _, other := range c.sessions {
			if o := other.adoption(); other.ctx.Err() == nil && o.seq > 0 && (c.current == nil || o.after(c.current.adoption())) {
				c.current = other
			}
		}
		if c.current != nil {
			c.current.mu.Lock()
			c.current.retiring, c.current.left = false, false
			c.current.mu.Unlock()
		} else {
			e.tellLocked(Event{Peer: s.peer, At: time.Now()})
			e.logger().Info("peer disconnected", "peer", s.peer, "err", problem.As(context.Cause(s.ctx)))
		}
	}
	if len(c.sessions) == 0 && c.problem == nil {
		if _, ok := e.Book.Get(s.peer); !ok {
			delete(e.contacts, s.peer)
		}
	}
	e.stirLocked()
}

// stirLocked wakes those who wait for a change of the contacts.
func (e *Endpoint) stirLocked() {
	close(e.stirred)
	e.stirred = make(chan struct{})
}

// sessionOf returns the session on which to open streams.
func (e *Endpoint) sessionOf(peer string) (*session, error) {
	if _, ok := e.Book.Get(peer); !ok {
		return nil, unknownPeer(peer)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.contacts[peer]
	if c != nil && c.current != nil {
		return c.current, nil
	}
	p := problem.New(problem.Transient, "peer_unreachable", "there is no connection with peer %s", peer).On(peer).
		WithHint("check that its agent runs and that one of the two agents can reach the other's endpoint")
	if c != nil && c.why() != nil {
		p.Err = c.why()
	}
	return nil, p
}
