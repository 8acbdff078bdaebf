package catalog

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// Key is the secret by which an agent knows its own records. It lies in the agent's
// directory alone.
type Key []byte

// prove computes what is stored with a link's record: only who has the key can. It is
// of one database, so that in a copy of it, or moved to another one, it is worth
// nothing.
func (k Key) prove(database uint32, link, agent string) string {
	mac := hmac.New(sha256.New, k)
	fmt.Fprintf(mac, "twinspan link\n%d\n%s\n%s\n", database, link, agent)
	return hex.EncodeToString(mac.Sum(nil))
}

// Found is what a database holds of an agent's links.
type Found struct {
	Database uint32  // its number, which grows from one to the next; 0 without the schema
	Proved   []*Link // records that the agent made
	Unproved []*Link // of releases that proved nothing: Prove makes them the agent's
	Strange  []*Link // with a proof that is not this agent's of this database
}

// The longest that Discover waits for locks and for a statement.
const (
	discoverLock      = 2 * time.Second
	discoverStatement = 5 * time.Second
)

// DiscoverSession is the session in which Discover looks into a database about which
// nothing is known.
func DiscoverSession() pg.Session {
	return pg.Session{Name: "discover", Settings: map[string]string{
		"lock_timeout":      fmt.Sprint(discoverLock.Milliseconds()),
		"statement_timeout": fmt.Sprint(discoverStatement.Milliseconds()),
		// Nothing of the tables' owner is evaluated while a query is planned.
		"constraint_exclusion": "off",
	}}
}

// Discover looks for records of the agent in a database that may be anybody's. It reads
// only tables that it has locked and then seen to be an agent's, so that no view,
// policy, rule or function of somebody else runs with the agent's rights. A schema
// that is not an agent's is a problem with code schema_taken, one that the agent's role
// may not read schema_closed, a newer layout catalog_newer.
func Discover(ctx context.Context, conn *pgx.Conn, agent string, key Key) (Found, error) {
	var found Found
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return found, pg.Classify(err, "begin to look into the database")
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	have, err := presentLocked(ctx, tx)
	if err != nil || !have {
		return found, err
	}
	if err := lockTables(ctx, tx, "link"); err != nil {
		return found, err
	}
	proofs, database, err := readProofs(ctx, tx)
	if err != nil {
		return found, err
	}
	found.Database = database
	links, err := Links(ctx, tx, agent)
	if err != nil {
		return found, err
	}
	for _, l := range links {
		proof, stored := proofs[l.ID]
		switch {
		case !stored:
			found.Unproved = append(found.Unproved, l)
		case hmac.Equal([]byte(proof), []byte(key.prove(database, l.ID, agent))):
			found.Proved = append(found.Proved, l)
		default:
			found.Strange = append(found.Strange, l)
		}
	}
	return found, nil
}

// presentLocked is Present in a transaction in which the tables stay what they are.
func presentLocked(ctx context.Context, tx pgx.Tx) (bool, error) {
	state, owner, readable, err := lookAtSchema(ctx, tx)
	switch {
	case err != nil:
		return false, err
	case state == absent:
		return false, nil
	case state == foreign:
		return false, notOurs("twinspan", fmt.Sprintf("belongs to the role %q, or is none that an agent made", owner))
	case !readable:
		return false, problem.New(problem.Unauthorised, "schema_closed", "the agent's role may not look into the schema twinspan of the role %q", owner).On("twinspan").
			WithHint("nothing has to be done where another agent's links are in that database")
	}
	if err := lockTables(ctx, tx, "version"); err != nil {
		return false, err
	}
	var version int
	if err := tx.QueryRow(ctx, `SELECT coalesce(pg_catalog.max(version), 0) FROM ONLY twinspan.version`).Scan(&version); err != nil {
		return false, pg.Classify(err, "read the version of the schema twinspan")
	}
	if version > Version {
		return true, problem.New(problem.Incompatible, "catalog_newer",
			"the schema twinspan has layout %d, this agent knows %d", version, Version).
			WithHint("run the newer twinspan that made it")
	}
	return true, nil
}

// readProofs returns the proofs by link, none where an earlier release made the schema,
// and the number of the database.
func readProofs(ctx context.Context, tx pgx.Tx) (map[string]string, uint32, error) {
	var database uint32
	var have bool
	err := tx.QueryRow(ctx, `SELECT d.oid, EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'twinspan' AND c.relname = 'proof') FROM pg_catalog.pg_database d WHERE d.datname = current_database()`).Scan(&database, &have)
	if err != nil || !have {
		return nil, database, pg.Classify(err, "look for the proofs of the links")
	}
	if err := lockTables(ctx, tx, "proof"); err != nil {
		return nil, database, err
	}
	rows, err := tx.Query(ctx, `SELECT link::text, proof FROM ONLY twinspan.proof`)
	if err != nil {
		return nil, database, pg.Classify(err, "read the proofs of the links")
	}
	proofs := map[string]string{}
	var link, proof string
	_, err = pgx.ForEachRow(rows, []any{&link, &proof}, func() error {
		proofs[link] = proof
		return nil
	})
	return proofs, database, pg.Classify(err, "read the proofs of the links")
}

// proofTable is made with the schema, and added to one of a release that had none.
const proofTable = `CREATE TABLE IF NOT EXISTS twinspan.proof (
    link  uuid PRIMARY KEY REFERENCES twinspan.link ON DELETE CASCADE,
    proof text NOT NULL
)`

// Prove makes a record the agent's own: it stores the proof, in whichever layout the
// schema is. Run it in the transaction that inserts the record, or in one of a session
// that the gate lets pass.
func Prove(ctx context.Context, q Querier, l *Link, key Key) error {
	if _, err := q.Exec(ctx, proofTable+PrivateSQL); err != nil {
		return pg.Classify(err, "make the table of the proofs")
	}
	var database uint32
	err := q.QueryRow(ctx, `SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()`).Scan(&database)
	if err == nil {
		_, err = q.Exec(ctx, `INSERT INTO twinspan.proof (link, proof) VALUES ($1::text::uuid, $2)
			ON CONFLICT (link) DO UPDATE SET proof = excluded.proof`, l.ID, key.prove(database, l.ID, l.Agent))
	}
	return pg.Classify(err, "store the proof of the link")
}

// ProveStored makes a record that is stored the agent's own, in a transaction.
func ProveStored(ctx context.Context, conn *pgx.Conn, l *Link, key Key) error {
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error { return Prove(ctx, tx, l, key) })
}
