package peer

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
	"golang.org/x/sync/errgroup"
)

// pins returns the fingerprints that a has pinned of a peer.
func pins(t *testing.T, a *agent, peer string) []string {
	t.Helper()
	p, ok := a.Book.Get(peer)
	if !ok {
		t.Fatalf("%s does not know %s", a.name(), peer)
	}
	return p.Fingerprints
}

func TestRotationUnderTraffic(t *testing.T) {
	a, b := pair(t, func(a, b *agent) {
		for _, x := range []*agent{a, b} {
			x.Handle("echo", echo)
			x.HandleStream("sink", sink)
		}
	})
	var calls atomic.Int64
	var over atomic.Bool
	var traffic errgroup.Group
	for _, x := range []struct {
		from *agent
		to   string
	}{{a, "b"}, {b, "a"}} {
		traffic.Go(func() error { // one stream all along
			s, err := x.from.Open(background(t), x.to, "sink", nil)
			if err != nil {
				return err
			}
			defer s.Close()
			for !over.Load() {
				if err := s.WriteFrame(0x10, make([]byte, 100_000)); err != nil {
					return err
				}
			}
			if err := s.CloseWrite(); err != nil {
				return err
			}
			_, _, err = s.ReadFrame()
			return err
		})
		traffic.Go(func() error {
			for !over.Load() {
				if err := x.from.Call(background(t), x.to, "echo", question{"x"}, nil); err != nil {
					return err
				}
				calls.Add(1)
			}
			return nil
		})
	}
	old := []string{a.Identity.Fingerprint()}
	for range 3 { // one after the other, on the same connection
		before := calls.Load()
		r, err := a.Rotate()
		check(t, err)
		if !r.Pending || !slices.Equal(r.Waiting, []string{"b"}) {
			t.Errorf("rotation is %+v", r)
		}
		_, err = b.Rotate()
		check(t, err)
		await(t, "the rotations", func() bool { return !a.Rotation().Pending && !b.Rotation().Pending })
		await(t, "the old pins to be dropped", func() bool {
			return slices.Equal(pins(t, b, "a"), []string{a.Identity.Fingerprint()}) && slices.Equal(pins(t, a, "b"), []string{b.Identity.Fingerprint()})
		})
		await(t, "more calls", func() bool { return calls.Load() > before+10 })
		if slices.Contains(old, a.Identity.Fingerprint()) {
			t.Error("a has the key it had")
		}
		old = append(old, a.Identity.Fingerprint())
	}
	over.Store(true)
	check(t, traffic.Wait())
	if strings.Contains(a.logs.String()+b.logs.String(), "peer disconnected") {
		t.Error("a session was interrupted")
	}
	// The new key is what a restarted agent has, and it is let in.
	id, err := LoadIdentity(a.dir)
	check(t, err)
	if id.Fingerprint() != a.Identity.Fingerprint() {
		t.Error("the directory holds another key")
	}
	a.stop()
	again := &agent{dir: a.dir, logs: a.logs}
	again.open(t, id)
	check(t, again.Book.SetEndpoint("b", b.Addr().String()))
	again.start(t)
	together(t, again, b)
}

func TestRotationWaitsForEveryPeer(t *testing.T) {
	a, b := pair(t, nil)
	c := newAgent(t, "c")
	a.know(t, c, "")
	old := a.Identity.Fingerprint()
	_, err := a.Rotate()
	check(t, err)
	await(t, "b to confirm", func() bool { return slices.Equal(a.Rotation().Waiting, []string{"c"}) })
	if a.Identity.Fingerprint() != old {
		t.Fatal("the key changed before c knows of it")
	}
	if got := pins(t, b, "a"); !slices.Equal(got, []string{old, a.Rotation().Next}) {
		t.Errorf("b pins %v", got)
	}
	_, err = a.Rotate()
	wantCode(t, "rotation during a rotation", err, "rotation_pending")

	// A restart in the middle forgets nothing, and old pins still let the agent in.
	a.stop()
	again := &agent{dir: a.dir, logs: a.logs}
	id, err := LoadIdentity(a.dir)
	check(t, err)
	again.open(t, id)
	check(t, again.Book.SetEndpoint("b", b.Addr().String()))
	again.start(t)
	together(t, again, b)
	if r := again.Rotation(); !r.Pending || !slices.Equal(r.Waiting, []string{"c"}) {
		t.Errorf("after the restart: %+v", r)
	}
	// Who is added meanwhile by hand pins both keys.
	c.know(t, again, again.Addr().String())
	if got := pins(t, c, "a"); len(got) != 2 {
		t.Errorf("c pins %v", got)
	}
	c.start(t)
	together(t, again, c)
	await(t, "the rotation to end", func() bool { return !again.Rotation().Pending })
	await(t, "the old pins to go", func() bool {
		return slices.Equal(pins(t, b, "a"), []string{again.Identity.Fingerprint()}) && slices.Equal(pins(t, c, "a"), []string{again.Identity.Fingerprint()})
	})
	if again.Identity.Fingerprint() == old {
		t.Error("the key is the old one")
	}
}

func TestRotationDoesNotWaitForRemovedPeers(t *testing.T) {
	a, _ := pair(t, nil)
	c := newAgent(t, "c")
	a.know(t, c, "")
	_, err := a.Rotate()
	check(t, err)
	await(t, "b to confirm", func() bool { return slices.Equal(a.Rotation().Waiting, []string{"c"}) })
	check(t, a.Book.Remove("c"))
	await(t, "the rotation to end", func() bool { return !a.Rotation().Pending })
}

func TestPeerPairedAgainDuringARotation(t *testing.T) {
	a, b := newAgent(t, "a").start(t), newAgent(t, "b").start(t)
	other := newAgent(t, "other")
	a.know(t, other, "") // keeps the rotation open
	_, err := b.Join(background(t), invite(t, a), JoinOptions{})
	check(t, err)
	together(t, a, b)
	_, err = a.Rotate()
	check(t, err)
	await(t, "b to confirm", func() bool { return slices.Equal(a.Rotation().Waiting, []string{"other"}) })
	check(t, b.Book.Remove("a"))
	_, err = b.Join(background(t), invite(t, a), JoinOptions{})
	check(t, err)
	await(t, "b to pin both keys again", func() bool { return len(pins(t, b, "a")) == 2 })
	check(t, a.Book.Remove("other"))
	await(t, "b to hold the new pin alone", func() bool {
		return slices.Equal(pins(t, b, "a"), []string{a.Identity.Fingerprint()}) && !a.Rotation().Pending
	})
}

func TestRotationAlone(t *testing.T) {
	a := newAgent(t, "a")
	old := a.Identity.Fingerprint()
	r, err := a.Rotate()
	if err != nil || r.Pending || a.Identity.Fingerprint() == old {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestRotationCutOffAtEachStep(t *testing.T) {
	path := func(a *agent, file string) string { return filepath.Join(a.dir, identityDir, file) }
	for name, step := range map[string]struct {
		until func(a *agent) error
		next  bool // whether the rotation survives
		taken bool // whether the next key is in use
	}{
		"certificate without key": {func(a *agent) error { return os.Remove(path(a, nextKeyFile)) }, false, false},
		"before the decision":     {func(*agent) error { return nil }, true, false},
		"key in place": {func(a *agent) error {
			return os.Rename(path(a, nextKeyFile), path(a, keyFile))
		}, false, true},
		"key and certificate in place": {func(a *agent) error {
			return errors.Join(os.Rename(path(a, nextKeyFile), path(a, keyFile)), os.Rename(path(a, nextCertificateFile), path(a, certificateFile)))
		}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newAgent(t, "a"), newAgent(t, "b")
			a.know(t, b, "")
			old := a.Identity.Fingerprint()
			_, err := a.Rotate()
			check(t, err)
			check(t, a.Identity.confirm("b"))
			next := a.Rotation().Next
			check(t, step.until(a))
			id, err := LoadIdentity(a.dir)
			check(t, err)
			want := old
			if step.taken {
				want = next
			}
			if _, ok := id.upcoming(); ok != step.next || id.Fingerprint() != want || step.next && !id.hasConfirmed("b") {
				t.Errorf("loaded %s, rotation %v", id.Fingerprint(), ok)
			}
			a.open(t, id)
			if !step.next {
				_, err = a.Rotate()
				check(t, err)
				if got := a.Rotation().Waiting; !slices.Equal(got, []string{"b"}) {
					t.Errorf("a new rotation waits for %v", got)
				}
			}
		})
	}
}

func TestForeignKeyCannotBeAnnounced(t *testing.T) {
	a, b := pair(t, nil)
	c := newAgent(t, "c")
	for name, certificate := range map[string][]byte{"another agent's": c.Identity.CertificatePEM(), "the other side's": b.Identity.CertificatePEM(), "none": nil} {
		err := a.Call(background(t), "b", announceMethod, announcement{Certificate: string(certificate)}, nil)
		if err == nil || problem.KindOf(err) == problem.Internal {
			t.Errorf("%s: got %v", name, err)
		}
	}
	err := a.Call(background(t), "b", proveMethod, proof{Signature: make([]byte, 64)}, nil)
	if problem.CodeOf(err) != "peer_rotation" {
		t.Errorf("got %v", err)
	}
	if got := pins(t, b, "a"); !slices.Equal(got, []string{a.Identity.Fingerprint()}) {
		t.Errorf("b pins %v", got)
	}
}
