package peer

import (
	"fmt"
	"reflect"
	"testing"
)

const someLink, otherLink = "0b9a4b4e-6f7e-4b7e-9f60-2f1c0e8d7a11", "7c1e2d3f-0000-4000-8000-00000000000a"

// Nothing is implied: each of database, direction and operation has to be granted.
func TestNothingIsImpliedByAGrant(t *testing.T) {
	databases := []string{"sales", "payroll", "*", ""}
	granted := Peer{Grants: []Grant{{Database: "sales", Direction: ToHere, Operations: []Operation{OpLink, OpRoles}}}}
	any := Peer{Grants: []Grant{{Database: AnyDatabase, Direction: FromHere, Operations: []Operation{OpDelete}}}}
	tried := 0
	for _, d := range databases {
		for _, way := range append(Directions(), "") {
			for _, op := range Operations() {
				tried++
				if (Peer{}).Allows(d, way, op) {
					t.Errorf("without a grant: %s %s %s", d, way, op)
				}
				if want := d == "sales" && way != FromHere && (op == OpLink || op == OpRoles); granted.Allows(d, way, op) != want {
					t.Errorf("one database: %s %s %s is %v", d, way, op, !want)
				}
				if want := way != ToHere && op == OpDelete; any.Allows(d, way, op) != want {
					t.Errorf("any database: %s %s %s is %v", d, way, op, !want)
				}
			}
		}
	}
	if tried != 48 {
		t.Errorf("tried %d", tried)
	}
}

func TestGrantsMergeAndEnd(t *testing.T) {
	have := Merge(nil, LinkGrants("sales", someLink))
	have = Merge(have, []Grant{{Database: "sales", Direction: ToHere, Operations: []Operation{OpRoles}}})
	have = Merge(have, []Grant{{Database: "sales", Direction: ToHere, Operations: []Operation{OpLink, OpRoles}}})
	if got, want := fmt.Sprint(have), "[{sales from-here [link failover delete] "+someLink+"} {sales to-here [link roles] } {sales to-here [link failover delete] "+someLink+"}]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	left := Without(have, []Grant{{Database: "sales", Direction: ToHere, Operations: []Operation{OpLink, OpFailover, OpDelete}}})
	if got, want := fmt.Sprint(left), "[{sales from-here [link failover delete] "+someLink+"} {sales to-here [roles] }]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if Without(have, []Grant{{Database: AnyDatabase, Direction: ToHere, Operations: Operations()}})[1].Operations[0] != OpLink {
		t.Error("to revoke what holds for any database took what one has")
	}
	for _, wrong := range []Grant{{}, {Database: "d"}, {Database: "d", Direction: "up", Operations: Operations()}, {Database: "d", Direction: ToHere, Operations: []Operation{"drop"}},
		{Database: "d", Direction: ToHere}, {Database: "d\x00", Direction: ToHere, Operations: Operations()}, {Database: "d", Direction: ToHere, Operations: Operations(), Link: "x"}} {
		if wrong.Check() == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
}

func TestGrantsAreDurableAndEndWithTheirLink(t *testing.T) {
	a, b := newAgent(t, "a"), newAgent(t, "b")
	a.know(t, b, "")
	check(t, a.Book.Grant("b", LinkGrants("sales", someLink)))
	check(t, a.Book.Grant("b", LinkGrants("other", otherLink)))
	check(t, a.Book.Grant("b", []Grant{{Database: `odd"na'me`, Direction: FromHere, Operations: []Operation{OpLink}}}))
	before, _ := a.Book.Get("b")
	again, err := OpenBook(a.dir)
	check(t, err)
	if p, _ := again.Get("b"); len(p.Grants) != 5 || !reflect.DeepEqual(p.Grants, before.Grants) {
		t.Errorf("read %+v, stored %+v", p.Grants, before.Grants)
	}
	check(t, again.EndLinkGrants(func(link string) bool { return link != someLink }))
	p, _ := again.Get("b")
	if p.Allows("sales", "", OpLink) || !p.Allows("other", FromHere, OpDelete) || !p.Allows(`odd"na'me`, FromHere, OpLink) {
		t.Errorf("left %+v", p.Grants)
	}
	check(t, again.Revoke("b", []Grant{{Database: `odd"na'me`, Direction: FromHere, Operations: Operations()}}))
	if p, _ := again.Get("b"); p.Allows(`odd"na'me`, "", OpLink) {
		t.Errorf("left %+v", p.Grants)
	}
	wantCode(t, "nobody", again.Grant("nobody", nil), "peer_unknown")
	wantCode(t, "wrong", again.Grant("b", []Grant{{Database: "d"}}), "grant_invalid")
}

// An invitation carries what the inviter grants, the joiner grants by itself, and a second
// use of the invitation brings nothing back.
func TestInvitationCarriesGrants(t *testing.T) {
	a, b := newAgent(t, "a").start(t), newAgent(t, "b")
	lets := Grant{Database: "sales", Direction: FromHere, Operations: []Operation{OpLink}}
	text, err := a.Invite(0, lets)
	check(t, err)
	p, err := b.Join(background(t), text, JoinOptions{Grants: JoinedGrants()})
	check(t, err)
	if !reflect.DeepEqual(p.Grants, JoinedGrants()) {
		t.Errorf("b grants %+v", p.Grants)
	}
	if q, _ := a.Book.Get("b"); !reflect.DeepEqual(q.Grants, []Grant{lets}) {
		t.Errorf("a grants %+v", q.Grants)
	}
	check(t, a.Book.Revoke("b", []Grant{lets}))
	_, err = b.Join(background(t), text, JoinOptions{})
	check(t, err)
	if q, _ := a.Book.Get("b"); len(q.Grants) != 0 {
		t.Errorf("after a second use a grants %+v", q.Grants)
	}
	if q, _ := b.Book.Get("a"); !reflect.DeepEqual(q.Grants, JoinedGrants()) {
		t.Errorf("a refreshed peer is granted %+v", q.Grants)
	}
	if _, err := a.Invite(0, Grant{Database: "x"}); err == nil {
		t.Error("a wrong grant is carried")
	}
}
