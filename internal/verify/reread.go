package verify

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// printed matches what a server has printed from a parse tree (fingerprint.sql), with
// the letter that says how it is read again.
var printed = regexp.MustCompile("\x01(.)([^\x02]*)\x02")

// unmarked is a definition as people read it.
func unmarked(detail string) string { return printed.ReplaceAllString(detail, "$2") }

// frame is what of a definition every server prints alike.
func frame(detail string) string { return printed.ReplaceAllString(detail, "\x01") }

// unread is the letter of what is compared to the letter: constants.
const unread = "n"

// meaning is what is known of two texts.
type meaning int

const (
	undecided meaning = iota // they cannot be read here, or not by their owner
	same
	other
)

// believed is how long it counts that two texts do not mean the same: what they name may
// change, while texts that were the same stay so.
const believed = 10 * time.Minute

// Reader tells whether two texts of a definition mean the same. A server may print
// otherwise what it has read from its own text: the twin's definitions have been read
// once more than the primary's. So the secondary reads both texts, prints what it has
// read, and reads that again: where one server comes to the same text from both, they mean
// the same. Everything is done in a transaction that is rolled back, with the rights of
// the object's owner, for reading a text may run what its owner has written. A Reader may be
// used by several goroutines; it remembers what it has found.
type Reader struct {
	DSN  *pg.DSN // of the secondary's database
	Link string  // the link's name, for the name of the session

	mu    sync.Mutex
	known map[[sha256.Size]byte]remembered
}

type remembered struct {
	is meaning
	at time.Time
}

// Settle leaves out differences that are in words alone. What cannot be decided stays, and
// is marked as Undecided. It fails only where it may succeed another time.
func (r *Reader) Settle(ctx context.Context, list []SchemaDifference) ([]SchemaDifference, error) {
	if !slices.ContainsFunc(list, func(d SchemaDifference) bool { return d.words }) {
		return list, nil
	}
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			conn.Close(context.WithoutCancel(ctx))
		}
	}()
	left := make([]SchemaDifference, 0, len(list))
	for _, d := range list {
		if !d.words {
			left = append(left, d)
			continue
		}
		is, err := r.compare(ctx, &conn, &d)
		if err != nil {
			return nil, err
		}
		if is == same {
			continue
		}
		// A server of another version may have made something else of the same command.
		d.Worded = d.Worded || is == undecided
		d.Undecided = is == undecided || d.Worded && strings.HasPrefix(d.Kind, "definition of ") || d.Worded && d.Kind == "rule"
		left = append(left, d)
	}
	return left, nil
}

// compare compares the printed parts of a difference, one by one.
func (r *Reader) compare(ctx context.Context, conn **pgx.Conn, d *SchemaDifference) (meaning, error) {
	a, b := printed.FindAllStringSubmatch(d.marked[0], -1), printed.FindAllStringSubmatch(d.marked[1], -1)
	result := same
	for i := range a {
		if a[i][2] == b[i][2] && a[i][1] == b[i][1] {
			continue
		}
		if a[i][1] == unread || a[i][1] != b[i][1] {
			return other, nil
		}
		is, err := r.decide(ctx, conn, d, a[i][1], a[i][2], b[i][2])
		if err != nil || is == other {
			return is, err
		}
		if is == undecided {
			result = undecided
		}
	}
	return result, nil
}

// decide compares two texts, unless it has done so before.
func (r *Reader) decide(ctx context.Context, conn **pgx.Conn, d *SchemaDifference, letter, a, b string) (meaning, error) {
	key := sha256.Sum256([]byte(strings.Join([]string{letter, d.here.Table.SQL(), d.here.Owner, d.here.Reread, a, b}, "\x00")))
	r.mu.Lock()
	was, have := r.known[key]
	r.mu.Unlock()
	if have && (was.is == same || time.Since(was.at) < believed) {
		return was.is, nil
	}
	if *conn == nil {
		c, err := r.DSN.Connect(ctx, pg.Session{Name: r.Link + "/reread", Apply: true, Settings: map[string]string{
			"lock_timeout": "5s", "statement_timeout": "20s", "check_function_bodies": "on", "client_min_messages": "error"}})
		if err != nil {
			return undecided, err
		}
		*conn = c
	}
	is, err := reread(ctx, *conn, &d.here, letter, a, b)
	if err != nil {
		if p := problem.As(pg.Classify(err, "read definitions again")); problem.Retry(p) || p.Kind == problem.Cancelled {
			return undecided, p
		}
		is = undecided
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[[sha256.Size]byte]remembered{}
	}
	r.known[key] = remembered{is, time.Now()}
	return is, nil
}

//go:embed reread.sql
var rereadSQL string

// reread has the server read two texts. The function that does so belongs to the object's
// owner and is used once: what he has written runs in it, and could change it.
func reread(ctx context.Context, conn *pgx.Conn, e *Entry, letter, a, b string) (is meaning, err error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return undecided, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	space := fmt.Sprintf("twinspan_reread_%d", conn.PgConn().PID())
	for _, sql := range []string{
		"CREATE SCHEMA " + space + " AUTHORIZATION " + sqlname.Quote(e.Owner),
		strings.ReplaceAll(rereadSQL, "/*schema*/", space),
		"ALTER FUNCTION " + space + ".twinspan_forms(text, text, text, text, text) OWNER TO " + sqlname.Quote(e.Owner),
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return undecided, err
		}
	}
	var first, second []string
	// In one call for both, and by a protocol that prepares nothing.
	err = tx.QueryRow(ctx, "SELECT x[1:4], x[5:8] FROM (SELECT "+space+".twinspan_forms($1, $2, $3, $4, $5) AS x OFFSET 0) AS f", pgx.QueryExecModeSimpleProtocol,
		letter, a, b, e.Table.SQL(), e.Reread).Scan(&first, &second)
	if err != nil {
		return undecided, err
	}
	for _, form := range first {
		if slices.Contains(second, form) {
			return same, nil
		}
	}
	return other, nil
}
