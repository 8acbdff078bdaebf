package web

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/twinspan/twinspan/internal/durable"
	"github.com/twinspan/twinspan/internal/problem"
)

// How long a session lasts: idle without a request, lasting at all. mostSessions bounds
// how many there are, written how often their last use is written down.
const (
	idle         = 30 * time.Minute
	lasting      = 12 * time.Hour
	mostSessions = 1000
	written      = time.Minute
)

// session is somebody who signed in.
type session struct {
	Key   string    `json:"key"` // of the Visitor
	Began time.Time `json:"began"`
	Used  time.Time `json:"used"`
}

func (s session) over(now time.Time) bool {
	return now.Sub(s.Used) > idle || now.Sub(s.Began) > lasting
}

// sessions are the sessions by the SHA-256 of their secrets, which the browsers alone
// have. A file keeps them over a restart. They are safe for concurrent use.
type sessions struct {
	path string // empty to keep them in memory
	now  func() time.Time

	mu    sync.Mutex
	known map[string]session
	wrote time.Time
}

// openSessions reads the file. One that cannot be understood ends all sessions: people
// sign in again.
func openSessions(path string) (*sessions, error) {
	s := &sessions{path: path, now: time.Now, known: map[string]session{}}
	if path == "" {
		return s, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, problem.Wrap(err, problem.Resource, "dir_not_writable", "read the sessions of the web pages")
	}
	if err := json.Unmarshal(text, &s.known); err != nil || s.known == nil {
		s.known = map[string]session{}
	}
	return s, nil
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// begin makes a session and returns its secret.
func (s *sessions) begin(key string) (string, error) {
	secret := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.sweepLocked(now)
	s.known[hashOf(secret)] = session{Key: key, Began: now, Used: now}
	return secret, s.writeLocked(now)
}

// sweepLocked forgets what is over, and the one that was used longest ago where there are
// too many.
func (s *sessions) sweepLocked(now time.Time) {
	oldest := ""
	for id, one := range s.known {
		if one.over(now) {
			delete(s.known, id)
		} else if oldest == "" || one.Used.Before(s.known[oldest].Used) {
			oldest = id
		}
	}
	if len(s.known) >= mostSessions {
		delete(s.known, oldest)
	}
}

// find returns the key of whose session a secret is. looks says that somebody uses it;
// a page that only keeps itself up to date does not prolong it.
func (s *sessions) find(secret string, looks bool) (key string, has bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, now := hashOf(secret), s.now()
	one, has := s.known[id]
	if !has || one.over(now) {
		return "", false
	}
	if looks {
		one.Used = now
		s.known[id] = one
		if now.Sub(s.wrote) > written {
			_ = s.writeLocked(now) // else a restart ends it earlier than it would
		}
	}
	return one.Key, true
}

// end ends a session.
func (s *sessions) end(secret string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, hashOf(secret))
	return s.writeLocked(s.now())
}

// writeLocked replaces the file as a whole.
func (s *sessions) writeLocked(now time.Time) error {
	if s.path == "" {
		return nil
	}
	s.wrote = now
	text, err := json.Marshal(s.known)
	if err == nil {
		err = durable.Write(s.path, text, 0o600)
	}
	if err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "keep the sessions of the web pages")
	}
	return nil
}
