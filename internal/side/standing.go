package side

import (
	"maps"
	"slices"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

// Doing is what a side does or waits for where no count of rows or bytes says how far it is.
type Doing struct {
	Text  string    // "" where there is nothing to say
	Since time.Time // when that began
}

// Seconds is how long that goes on, for the other side, whose clock may be another.
func (d Doing) Seconds() float64 {
	if d.Text == "" {
		return 0
	}
	return time.Since(d.Since).Seconds()
}

// Does notes what this side does from now on. It is forgotten when the phase changes.
func (s *Side) Does(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doing.Text != text { // it may be said again and again
		s.doing = Doing{text, time.Now()}
	}
}

// Doing returns what this side does.
func (s *Side) Doing() Doing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doing
}

// PhaseSince returns when the phase began; zero where that was before the agent's start.
func (s *Side) PhaseSince() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phased
}

// SetTrouble notes what keeps the link from its work, or with nil that nothing does.
func (s *Side) SetTrouble(p *problem.Error) {
	s.mu.Lock()
	before := s.trouble
	s.trouble = p
	s.mu.Unlock()
	switch {
	case p != nil && (before == nil || before.Code != p.Code):
		s.Log.Warn("link interrupted", "code", p.Code, "subject", p.Subject, "err", p)
	case p == nil && before != nil:
		s.Log.Info("link goes on", "after", before.Code)
	}
}

// Trouble returns what keeps the link from its work; nil for nothing.
func (s *Side) Trouble() *problem.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble
}

// Warn notes, or with nil takes back, a problem that does not stop the stream.
func (s *Side) Warn(code string, p *problem.Error) {
	s.mu.Lock()
	before := s.warnings[code]
	if p == nil {
		delete(s.warnings, code)
	} else {
		if s.warnings == nil {
			s.warnings = map[string]*problem.Error{}
		}
		s.warnings[code] = p
	}
	s.mu.Unlock()
	switch {
	case p != nil && before == nil:
		s.Log.Warn("link falls behind", "code", p.Code, "subject", p.Subject, "err", p)
	case p == nil && before != nil:
		s.Log.Info("link has caught up", "after", before.Code)
	}
}

// Warnings lists the problems that do not stop the stream, by their codes.
func (s *Side) Warnings() []*problem.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*problem.Error, 0, len(s.warnings))
	for _, code := range slices.Sorted(maps.Keys(s.warnings)) {
		list = append(list, s.warnings[code])
	}
	return list
}

// Forget drops what stood against the link as long as its role was another.
func (s *Side) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warnings, s.trouble, s.suspect = nil, nil, false
}

// ProblemOf is an error as views show it.
func ProblemOf(p *problem.Error, severity api.Severity) *api.Problem {
	return &api.Problem{Code: p.Code, Severity: severity, Title: p.Error(), Subject: p.Subject, Hint: p.Hint}
}
