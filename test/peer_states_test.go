package test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// awaitPeer waits until a side is connected with its peer.
func awaitPeer(t *testing.T, at *linktest.Side, name string) {
	t.Helper()
	pgtest.Await(t, linktest.Patience, at.Name+" meets "+name, func() error {
		peers, err := at.Client.Peers(t.Context())
		if err != nil || !slices.ContainsFunc(peers, func(p api.Peer) bool { return p.Name == name && p.Connected }) {
			return fmt.Errorf("peers %+v, %v", peers, err)
		}
		return nil
	})
}

// The table of docs/design/0025-one-at-work.md: every state that a peer can be in is left by
// commands, with the links that depend on it, and without a new copy.
func TestEveryStateOfAPeerHasAWayOut(t *testing.T) {
	t.Parallel()
	p := linked(t)
	ctx := t.Context()
	a, b := p.A, p.B
	first := copied(t, b)
	row := 2000
	goesOn := func(state string) {
		t.Helper()
		row++
		pgtest.Exec(t, a.Server.DSN("sales"), fmt.Sprintf(`INSERT INTO t VALUES (%d, '%s')`, row, state))
		now := &linktest.Pair{A: a, B: b}
		now.WaitPhase(t, "sales", api.Replicating)
		now.WaitEqual(t, "sales", "sales")
	}
	pairAgain := func() string {
		t.Helper()
		invitation, err := a.Client.Invite(ctx, time.Hour)
		if err == nil {
			_, err = b.Client.Join(ctx, api.JoinRequest{Token: invitation.Token})
		}
		if err != nil {
			t.Fatalf("pair again: %v", err)
		}
		awaitPeer(t, a, "b")
		return invitation.Token
	}

	// Half paired: a has stored b, and b nothing of a.
	token := pairAgain()
	if err := b.Client.RemovePeer(ctx, "a", true); err != nil {
		t.Fatal(err)
	}
	says(t, b, "peer_removed")
	if _, err := b.Client.Join(ctx, api.JoinRequest{Token: token}); err != nil {
		t.Fatalf("join once more: %v", err)
	}
	if _, err := b.Client.GrantPeer(ctx, "a", api.Grant{Database: "sales", Direction: "to-here", Operations: []string{"link", "failover", "delete"}}); err != nil {
		t.Fatal(err)
	}
	goesOn("half paired")

	// Removed on one side only.
	if err := a.Client.RemovePeer(ctx, "b", true); err != nil {
		t.Fatal(err)
	}
	says(t, a, "peer_removed")
	says(t, b, "peer_refused")
	pairAgain()
	says(t, b, "peer_not_granted")
	if _, err := a.Client.GrantPeer(ctx, "b", api.Grant{Database: "sales", Direction: "from-here", Operations: []string{"link", "failover", "delete"}}); err != nil {
		t.Fatal(err)
	}
	goesOn("removed on one side")

	// Taken over, and nothing is known of the peer.
	lose(t, b)
	pgtest.Exec(t, b.Server.DSN("sales"),
		`BEGIN READ WRITE; SET LOCAL session_replication_role = replica; SET LOCAL twinspan.pass_gate = on; DROP TABLE twinspan.peer; COMMIT`)
	anew, made := b.Adopted(t)
	if len(made.Adopted.Peers) != 1 || made.Adopted.Peers[0].Known {
		t.Fatalf("taken over: %+v", made.Adopted)
	}
	anew.Start()
	b = anew
	says(t, b, "peer_removed")
	export, err := a.Client.ExportPeer(ctx)
	if err == nil {
		_, err = b.Client.AddPeer(ctx, api.AddPeer{Name: "a", Endpoint: export.Endpoint, Certificate: export.Certificate,
			Grants: []api.Grant{{Database: "sales", Direction: "to-here", Operations: []string{"link", "failover", "delete"}}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	says(t, a, "peer_key_unknown")
	trust(t, a, "b", made.Fingerprint)
	goesOn("taken over without keys")
	noted(t, &linktest.Pair{A: a, B: b})

	// Made anew by mistake without --adopt, and trusted: it is another agent.
	lose(t, b)
	wrong := b.Beside(t)
	plain, err := wrong.Adopt(t, b.Server.AgentDSN(), "")
	if err != nil {
		t.Fatal(err)
	}
	wrong.Start()
	if _, err := wrong.Client.AddPeer(ctx, api.AddPeer{Name: "a", Endpoint: export.Endpoint, Certificate: export.Certificate}); err != nil {
		t.Fatal(err)
	}
	endpoint := plain.Endpoint
	if _, err := a.Client.SetPeer(ctx, "b", api.SetPeer{Fingerprint: plain.Fingerprint, Endpoint: &endpoint}); err != nil {
		t.Fatal(err)
	}
	says(t, a, "peer_agent")
	wrong.Stop()
	anew, made = b.Adopted(t)
	anew.Start()
	b = anew
	trust(t, a, "b", made.Fingerprint)
	goesOn("made anew by mistake")
	if got := copied(t, b); got != first {
		t.Errorf("the twin was copied anew")
	}

	// Agent and server are lost for good.
	lose(t, b)
	if _, err := a.Client.DeleteLink(ctx, "sales", true); err != nil {
		t.Fatalf("delete: %v", err)
	}
	if err := a.Client.RemovePeer(ctx, "b", false); err != nil {
		t.Fatalf("remove: %v", err)
	}
	peers, err := a.Client.Peers(ctx)
	links, linksErr := a.Client.Links(ctx)
	if err != nil || linksErr != nil || len(peers) != 0 || len(links) != 0 {
		t.Errorf("left: %+v, %+v, %v, %v", peers, links, err, linksErr)
	}
}
