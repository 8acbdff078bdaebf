package peer

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/transcript"
)

// A host becomes a member with the token of the instance alone; a refusal leaves the token good, and a success does not.
func TestMemberInvitation(t *testing.T) {
	a, b := newAgent(t, "a"), newAgent(t, "b")
	a.start(t)
	ctx := background(t)
	text, err := a.InviteMember(0)
	check(t, err)
	join := func(request string) ([]byte, error) { return JoinInstance(ctx, text, "test", []byte(request)) }
	_, err = join(`{"n":1}`)
	wantCode(t, "no member itself", err, "member_none")
	var asked []string
	a.Admit = func(_ context.Context, request []byte) ([]byte, error) {
		asked = append(asked, string(request))
		if len(asked) == 1 {
			return nil, problem.New(problem.Conflict, "member_name_taken", "taken").WithHint("another one")
		}
		return bytes.Repeat([]byte("x"), 1<<20), nil
	}
	_, err = join(`{"n":2}`)
	wantCode(t, "refused", err, "member_name_taken")
	answer, err := join(`{"n":3}`)
	check(t, err)
	if len(answer) != 1<<20 || !slices.Equal(asked, []string{`{"n":2}`, `{"n":3}`}) {
		t.Errorf("%d bytes for %v", len(answer), asked)
	}
	_, err = join(`{"n":4}`)
	wantCode(t, "once more", err, "invitation_used")

	text, err = a.InviteMember(0)
	check(t, err)
	_, err = b.Join(ctx, text, JoinOptions{})
	wantCode(t, "a member's token for a peer", err, "invitation_kind")
	text = invite(t, a)
	_, err = join(`{}`)
	wantCode(t, "a peer's token for a member", err, "invitation_kind")
	if _, err := b.Join(ctx, text, JoinOptions{}); err != nil {
		t.Errorf("the peer's token is not good any more: %v", err)
	}
}

// A peer keeps where else an agent may be dialled, and finds the member that serves there; a key or a peer that another member has stored is read anew.
func TestPeersDialOtherMembers(t *testing.T) {
	a, b := newAgent(t, "a"), newAgent(t, "b")
	other := &agent{dir: a.dir, logs: &transcript.Buffer{}} // the same agent on another host
	other.open(t, a.Identity)
	a.know(t, b, "")
	check(t, other.Book.Reread())
	if _, ok := other.Book.Get("b"); !ok {
		t.Error("the peer that another member has stored is not known")
	}
	check(t, other.Identity.Reread())
	other.start(t)
	elsewhere := other.Addr().String()
	other.stop()
	a.Others = func() []string { return []string{elsewhere, "not an address"} }
	a.start(t)
	b.Listen = ""
	b.know(t, a, a.Addr().String())
	b.start(t)
	together(t, a, b)
	if p, _ := b.Book.Get("a"); !slices.Equal(p.Others, []string{elsewhere}) {
		t.Errorf("others: %v", p.Others)
	}
	a.stop()
	other.Listen = elsewhere
	other.start(t)
	await(t, "the peer to find the other member", func() bool { return other.Connected("b") && b.Connected("a") })
	kept, err := OpenBook(b.dir)
	check(t, err)
	if p, _ := kept.Get("a"); !slices.Equal(p.Others, []string{elsewhere}) {
		t.Errorf("kept: %v", p.Others)
	}
}
