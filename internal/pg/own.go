package pg

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// own are the sessions of this process, by which its own work is told from that of others. Names of sessions tell nothing: everybody may
// take any.
var own ownSessions

const (
	// ownKept is how long a session is remembered that has ended: whoever reads a server's log comes later.
	ownKept = 10 * time.Minute
	// ownSlack is by how much the clocks of log and process may differ, which are one machine's.
	ownSlack = time.Second
	// ownNames is how many names of programs are remembered.
	ownNames = 1000
)

type ownSessions struct {
	mu    sync.Mutex
	of    map[uint32][]*ownSession
	names []string // application names of programs that this process has run, each with a number that nobody guesses
	swept time.Time
}

// ownSession is one, from before its login to its end.
type ownSession struct{ from, to time.Time }

// opened notes a session that has begun on a connection.
func (o *ownSessions) opened(conn *pgconn.PgConn) {
	c := conn.Conn()
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	s := socketBelow(c)
	if s == nil {
		return
	}
	now := time.Now()
	session := &ownSession{from: s.dialled}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.of == nil {
		o.of = map[uint32][]*ownSession{}
	}
	o.of[conn.PID()] = append(o.of[conn.PID()], session)
	s.closed = func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if session.to.IsZero() {
			session.to = time.Now()
		}
	}
	if now.Sub(o.swept) < time.Minute {
		return
	}
	o.swept = now
	for pid, list := range o.of {
		list = slices.DeleteFunc(list, func(s *ownSession) bool { return !s.to.IsZero() && now.Sub(s.to) > ownKept })
		if o.of[pid] = list; len(list) == 0 {
			delete(o.of, pid)
		}
	}
}

func socketBelow(c net.Conn) *socket {
	s, _ := c.(*socket)
	return s
}

// IsOwn says whether this process has, or had, a session in the server process pid at a moment, within the last ten minutes. It is meant for
// one server, and takes sessions with others for that server's, too.
func IsOwn(pid uint32, at time.Time) bool {
	own.mu.Lock()
	defer own.mu.Unlock()
	return slices.ContainsFunc(own.of[pid], func(s *ownSession) bool {
		return !at.Before(s.from.Add(-ownSlack)) && (s.to.IsZero() || !at.After(s.to.Add(ownSlack)))
	})
}

// IsOwnProgram says whether an application name is one that this process gave a program that it ran.
func IsOwnProgram(name string) bool {
	own.mu.Lock()
	defer own.mu.Unlock()
	return slices.Contains(own.names, name)
}

// programName is the application name for a program that this process runs: what it is for and, where that leaves room for it in the 63 bytes that
// servers keep, a number. Whoever ends sessions by their names goes by the first part.
func programName(purpose string) string {
	var number [8]byte
	rand.Read(number[:]) // never fails (crypto/rand)
	name := "twinspan/" + purpose
	if len(name) <= 63-17 {
		name += " " + hex.EncodeToString(number[:])
	}
	name = name[:min(len(name), 63)]
	own.mu.Lock()
	defer own.mu.Unlock()
	if own.names = append(own.names, name); len(own.names) > ownNames {
		own.names = own.names[1:]
	}
	return name
}
