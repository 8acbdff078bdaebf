package catalog_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/catalog"
)

// The audit's tables are made in a schema of an earlier release, keep what is stored, and
// forget it with the epoch.
func TestAudit(t *testing.T) {
	ctx := testContext(t)
	conn, _ := open(t)
	if err := catalog.Install(ctx, conn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, `DROP TABLE twinspan.audit_item, twinspan.audit`); err != nil {
		t.Fatal(err)
	}
	l := sample()
	if err := catalog.Insert(ctx, conn, l); err != nil {
		t.Fatal(err)
	}
	if rate, err := catalog.AuditRate(ctx, conn, l.ID); rate != nil || err != nil {
		t.Errorf("without its tables the rate is %v, %v", rate, err)
	}
	if err := catalog.SetAuditRate(ctx, conn, l.ID, 0); err != nil {
		t.Fatal(err)
	}
	began, ended := time.Now().UTC().Truncate(time.Microsecond), time.Time{}
	items := []catalog.AuditItem{
		{Kind: "table", Name: "public.t", Bytes: 7, Divided: true, Compared: began, Equal: began, Position: "0/1", Upto: []string{"a", ""}, Begun: began, Start: "0/2", Odd: true, Differs: json.RawMessage(`[{"kind": "row"}]`), More: true},
		{Kind: "table", Name: "public.u", Skipped: "why", Differs: json.RawMessage(`[]`)},
	}
	a, list, err := catalog.LoadAudit(ctx, conn, l.ID, 3)
	if err != nil || a.Rate == nil || *a.Rate != 0 || len(list) != 0 || !a.Began.IsZero() {
		t.Fatalf("at first: %+v %v, %v", a, list, err)
	}
	if err := catalog.StoreAuditItems(ctx, conn, l.ID, items, nil); err != nil {
		t.Fatal(err)
	}
	if err := catalog.StorePass(ctx, conn, l.ID, began, ended); err != nil {
		t.Fatal(err)
	}
	a, list, err = catalog.LoadAudit(ctx, conn, l.ID, 3)
	if err != nil || !a.Began.Equal(began) || !a.Ended.IsZero() || len(list) != 2 {
		t.Fatalf("stored: %+v %v, %v", a, list, err)
	}
	if got, want := list[0], items[0]; got.Name != want.Name || got.Upto[0] != "a" || len(got.Upto) != 2 || !got.Equal.Equal(began) || !got.Odd || !got.More || string(got.Differs) != string(want.Differs) || got.Start != "0/2" {
		t.Errorf("stored %+v, read %+v", want, got)
	}
	if err := catalog.StoreAuditItems(ctx, conn, l.ID, nil, [][2]string{{"table", "public.u"}}); err != nil {
		t.Fatal(err)
	}
	if _, list, err = catalog.LoadAudit(ctx, conn, l.ID, 3); err != nil || len(list) != 1 {
		t.Errorf("of two items one was taken away, and left are %v, %v", list, err)
	}
	a, list, err = catalog.LoadAudit(ctx, conn, l.ID, 4)
	if err != nil || len(list) != 0 || !a.Began.IsZero() || a.Rate == nil {
		t.Errorf("in another epoch: %+v %v, %v", a, list, err)
	}
	if err := catalog.Delete(ctx, conn, l.ID); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM twinspan.audit`).Scan(&left); err != nil || left != 0 {
		t.Errorf("of a link that was removed %d audits are left, %v", left, err)
	}
}
