package capture_test

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// TestLargeTransactionOverTLS: blocks are read by a reader that is behind, and over TLS
// each of their messages is a record of its own. A wait for each would take longer than
// tests are given.
func TestLargeTransactionOverTLS(t *testing.T) {
	const rows = 15_000
	server := pgtest.Start(t, pgtest.WithSetting("logical_decoding_work_mem", "64kB"))
	dsn, source := fresh(t, server)
	if got := pgtest.Query(t, dsn, `SHOW ssl`)[0][0]; got != "on" || !strings.Contains(dsn, "sslmode=require") {
		t.Fatalf("sessions have TLS: %s, %s", got, dsn)
	}
	pgtest.Exec(t, dsn, `CREATE TABLE public.t (id text PRIMARY KEY)`)
	prepare(t, source)
	c := &collector{}
	st := capture.NewStream(source, makeSlot(t, dsn, source.Object()))
	st.Sink, st.Streamed = c, true
	pgtest.Exec(t, dsn, fmt.Sprintf(`INSERT INTO public.t SELECT i FROM generate_series(1, %d) i`, rows))
	start(t, st)
	pgtest.Eventually(t, patience, func() error {
		records, _ := c.all()
		if n := len(records); n == 0 || records[n-1][0] != 'c' {
			return fmt.Errorf("of the transaction came %d messages, not its commit", n)
		}
		return nil
	})
	records, _ := c.all()
	row := 0
	for _, r := range records {
		if r[0] != 'I' {
			continue
		}
		// Behind the transaction and the table: N, the columns' number, t, a length.
		length := binary.BigEndian.Uint32(r[1+4+4+1+2+1:])
		if row++; string(r[1+4+4+1+2+1+4:][:length]) != strconv.Itoa(row) {
			t.Fatalf("row %d is %q", row, r)
		}
	}
	if row != rows {
		t.Errorf("%d rows of %d", row, rows)
	}
}
