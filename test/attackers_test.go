package test

import (
	"context"
	"crypto/ed25519"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/attack"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// battle is a link that is attacked.
type battle struct {
	t      *testing.T
	p      *linktest.Pair
	random *rand.Rand
	seed   uint64
	before string
}

// state is what no attacker may change: powers of roles, what others own, and what the link has on both servers.
func (b *battle) state() string {
	var all []string
	for _, s := range []*linktest.Side{b.p.A, b.p.B} {
		for _, sql := range []string{
			`SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1`,
			`SELECT r.rolname, m.rolname FROM pg_auth_members x JOIN pg_roles r ON r.oid = x.roleid JOIN pg_roles m ON m.oid = x.member WHERE r.rolname !~ '^pg_' ORDER BY 1, 2`,
			`SELECT datname, datdba FROM pg_database ORDER BY 1`,
			`SELECT p.proname, md5(p.prosrc), p.proacl FROM pg_proc p WHERE p.pronamespace = 'twinspan'::regnamespace AND p.proname !~ '^reader_' ORDER BY 1, 2`,
			`SELECT evtname, evtenabled FROM pg_event_trigger ORDER BY 1`, `SELECT nspname, nspowner FROM pg_namespace WHERE nspname IN ('twinspan', 'public') ORDER BY 1`,
			`SELECT role, phase, epoch FROM twinspan.link`, `SELECT count(*), sum(id) FROM public.victim`, `SELECT slot_name FROM pg_replication_slots WHERE NOT temporary ORDER BY 1`,
		} {
			all = append(all, fmt.Sprint(s.Name, ": ", sql, "\n", pgtest.Query(b.t, s.Server.DSN("sales"), sql)))
		}
	}
	return strings.Join(all, "\n")
}

// held fails the test unless everything is as before, and rows of the victim's cross.
func (b *battle) held(who string, last []string) {
	b.t.Helper()
	if l, err := b.p.B.Client.Link(b.t.Context(), "sales"); err != nil || l.Phase == api.Broken {
		b.t.Fatalf("seed %d: after %s the link is %s: %+v, %v\nthe last ones:\n%s", b.seed, who, l.Phase, l.Problems, err, strings.Join(last, ";\n"))
	}
	b.p.WaitApplied(b.t, "sales", "sales")
	if now := b.state(); now != b.before {
		b.t.Fatalf("seed %d: after %s\n%s\nand was\n%s\nthe last ones:\n%s", b.seed, who, now, b.before, strings.Join(last, ";\n"))
	}
}

// statements has a role give statements in a database of each side in turn.
func (b *battle) statements(role, database string, draw func() string) {
	b.t.Helper()
	sessions := map[*linktest.Side]*pgx.Conn{}
	var last []string
	for n := range attack.Statements() {
		side := []*linktest.Side{b.p.A, b.p.B}[n%2]
		c := sessions[side]
		if c == nil || c.IsClosed() || b.random.IntN(60) == 0 {
			if c != nil {
				c.Close(context.Background())
			}
			c = pgtest.Conn(b.t, side.Server.DSNOf(role, pgtest.Password, database))
			sessions[side] = c
			pgtest.Eventually(b.t, linktest.Patience, func() error {
				_, err := c.Exec(b.t.Context(), `SET statement_timeout = '5s'; SET lock_timeout = '200ms'`)
				return err
			})
		}
		sql := draw()
		if last = append(last, side.Name+": "+sql); len(last) > 20 {
			last = last[1:]
		}
		_, _ = c.Exec(b.t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
	}
	for _, c := range sessions {
		c.Close(context.Background())
	}
	// Anybody can leave a prepared transaction, and whoever takes a snapshot of the log waits for it.
	for _, s := range []*linktest.Side{b.p.A, b.p.B} {
		for _, x := range pgtest.Query(b.t, s.Server.DSN("postgres"), `SELECT database, gid FROM pg_prepared_xacts`) {
			pgtest.Exec(b.t, s.Server.DSN(x[0]), `ROLLBACK PREPARED `+sqlname.Literal(x[1]))
		}
	}
	b.held(role+" in "+database, last)
	b.t.Logf("%d statements of %s in %s", attack.Statements(), role, database)
}

// A role that may only connect, the owner of a table, the owner of another database, a peer that was removed
// and a stranger give random statements and messages to a pair of servers with a link that works. None gets a
// right or changes what is not theirs, and the link goes on.
func TestAttackersAtARunningLink(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	c := p.Third(t, "c", linktest.Options{})
	for _, s := range []*linktest.Side{p.A, p.B} {
		for _, role := range []string{"connects", `own'er "x`, "mallory"} {
			pgtest.Exec(t, s.Server.DSN("postgres"), `CREATE ROLE `+sqlname.Quote(role)+` LOGIN PASSWORD `+sqlname.Literal(pgtest.Password))
		}
		pgtest.Exec(t, s.Server.DSN("postgres"), `CREATE ROLE attacker_connects`, `CREATE DATABASE other OWNER mallory`)
	}
	p.A.Server.CreateDatabase(t, "sales")
	pgtest.Exec(t, p.A.Server.DSN("sales"), `CREATE TABLE public.victim (id int PRIMARY KEY)`, `INSERT INTO public.victim SELECT generate_series(1, 100)`,
		`REVOKE CREATE ON SCHEMA public FROM PUBLIC`, `CREATE SCHEMA own AUTHORIZATION "own'er ""x"`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	p.WaitApplied(t, "sales", "sales")
	seed := uint64(pgtest.Seed())
	b := &battle{t: t, p: p, random: rand.New(rand.NewPCG(seed, 12)), seed: seed}
	b.before = b.state()
	draws := &attack.Attacker{Random: b.random,
		Functions: pgtest.Query(t, p.A.Server.DSN("sales"), `SELECT p.proname, coalesce((SELECT string_agg(format_type(a, NULL), ',') FROM unnest(p.proargtypes) a), '') FROM pg_proc p WHERE p.pronamespace = 'twinspan'::regnamespace ORDER BY 1, 2`),
		Tables:    pgtest.Query(t, p.A.Server.DSN("sales"), `SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'twinspan'::regnamespace AND c.relkind IN ('r', 'S') ORDER BY 1`)}
	b.statements("connects", "sales", draws.Statement)
	b.statements(`own'er "x`, "sales", draws.Statement)
	b.statements("mallory", "other", func() string { return b.neighbour(draws) })
	for _, s := range []*linktest.Side{p.A, p.B} { // which read all databases
		s.Stop()
		s.Start()
	}
	p.WaitPhase(t, "sales", api.Replicating)
	b.held("mallory at a start", nil)

	c.Stop()
	if err := p.A.Client.RemovePeer(t.Context(), "c", true); err != nil {
		t.Fatal(err)
	}
	removed, err := tls.LoadX509KeyPair(filepath.Join(c.Dir.Path(), "identity", "certificate.pem"), filepath.Join(c.Dir.Path(), "identity", "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	b.messages("a removed peer", p.A, []tls.Certificate{removed})
	b.messages("a stranger", p.A, []tls.Certificate{unknown(t)})
	pgtest.Exec(t, p.A.Server.DSN("sales"), `INSERT INTO public.victim VALUES (0)`)
	p.WaitApplied(t, "sales", "sales")
	if v := verify(t, p.A.Client, "sales", api.Verify{}); v.State != api.Equal || v.Rows < 101 {
		t.Errorf("seed %d: verify says %s: %q, problem %+v", seed, v.State, told(v), v.Problem)
	}
}

// neighbour draws a statement of who owns another database of the instance.
func (b *battle) neighbour(draws *attack.Attacker) string {
	of := func(list ...string) string { return list[b.random.IntN(len(list))] }
	table := of("link", "version", "signal", "lost", "gate_pass", "seed_entry")
	switch b.random.IntN(8) {
	case 0:
		return of(`CREATE SCHEMA twinspan`, `DROP SCHEMA twinspan CASCADE`, `ALTER SCHEMA twinspan RENAME TO old`, `CREATE SCHEMA old`)
	case 1:
		return `CREATE TABLE twinspan.` + table + ` (` + of(`version int DEFAULT 99`, `id uuid, name text, role text`, `id int PRIMARY KEY, kind text`) + `)`
	case 2:
		return `CREATE VIEW twinspan.` + table + ` AS SELECT ` + of(`99 AS version`, `twinspan.e() AS id`, `pg_sleep(100)`)
	case 3:
		return `CREATE OR REPLACE FUNCTION twinspan.e() RETURNS int LANGUAGE plpgsql AS $$ BEGIN ` + of(`EXECUTE 'ALTER ROLE mallory SUPERUSER';`, `PERFORM pg_sleep(100);`, `EXECUTE 'COPY (SELECT 1) TO PROGRAM ''true''';`) + ` RETURN 1; END $$`
	case 4:
		return of(`BEGIN; LOCK TABLE twinspan.`+table, `COMMIT`, `DROP TABLE twinspan.`+table+` CASCADE`, `INSERT INTO twinspan.`+table+` DEFAULT VALUES`, `CREATE RULE r AS ON INSERT TO twinspan.`+table+` DO INSTEAD NOTHING`)
	case 5:
		return of(`DROP DATABASE sales`, `ALTER DATABASE sales OWNER TO mallory`, `ALTER DATABASE sales SET default_transaction_read_only = on`, `CREATE DATABASE copied TEMPLATE sales`, `ALTER DATABASE other SET search_path = twinspan`, `ALTER DATABASE other RENAME TO sales`,
			`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'linkagent'`, `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'linkagent'`, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`,
			`SELECT pg_replication_origin_advance(roname, '0/1') FROM pg_replication_origin`, `CREATE PUBLICATION p FOR ALL TABLES`, `CREATE SUBSCRIPTION s CONNECTION 'dbname=sales' PUBLICATION p`, `ALTER SYSTEM SET wal_level = minimal`)
	case 6:
		return of(`SELECT pg_advisory_lock(8392292353529967719)`, `LISTEN twinspan`, `NOTIFY twinspan, 'x'`, `SELECT pg_notify('twinspan', repeat('x', 7000))`, `PREPARE TRANSACTION 'twinspan'`, `ROLLBACK`, `REVOKE CONNECT ON DATABASE other FROM PUBLIC`, `GRANT CONNECT ON DATABASE other TO PUBLIC`)
	}
	return draws.Statement()
}

// messages sends what is no conversation between agents, and parts of one, under a certificate that is not trusted. The
// agent says nothing but that the handshake failed.
func (b *battle) messages(who string, to *linktest.Side, certificates []tls.Certificate) {
	b.t.Helper()
	links, err := to.Client.ExportPeer(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for sent := 0; sent < attack.Statements(); {
		sent += b.connection(links.Endpoint, certificates)
	}
	pgtest.Eventually(b.t, linktest.Patience, func() error { // the places of strangers do not keep the peer out
		peers, err := to.Client.Peers(b.t.Context())
		if err != nil || len(peers) == 0 || !peers[0].Connected {
			return fmt.Errorf("%+v, %v", peers, err)
		}
		return nil
	})
	b.held(who, nil)
	b.t.Logf("%d messages of %s", attack.Statements(), who)
}

// connection is one with some messages, and returns how many were sent.
func (b *battle) connection(address string, certificates []tls.Certificate) int {
	b.t.Helper()
	raw, err := net.DialTimeout("tcp", address, time.Minute)
	if err != nil {
		b.t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
	var conn net.Conn = raw
	if b.random.IntN(4) > 0 {
		config := &tls.Config{InsecureSkipVerify: true, Certificates: certificates, NextProtos: [][]string{{"twinspan/1"}, {"h2"}, nil, {"twinspan/1", "twinspan-pair/1"}, {"twinspan-pair/1"}}[b.random.IntN(5)]}
		secured := tls.Client(raw, config)
		if secured.Handshake() != nil {
			return 1
		}
		conn = secured
	}
	n := 0
	for range 1 + b.random.IntN(12) {
		n++
		if _, err := conn.Write(b.frame()); err != nil {
			break
		}
	}
	if c, ok := conn.(*tls.Conn); ok {
		_ = c.CloseWrite()
		answer, _ := io.ReadAll(io.LimitReader(conn, 1<<16))
		if len(answer) > 0 && c.ConnectionState().NegotiatedProtocol != "twinspan-pair/1" {
			b.t.Fatalf("seed %d: it was answered %q", b.seed, answer)
		}
	}
	return n
}

// frame is a message in the form of those of agents, or nearly.
func (b *battle) frame() []byte {
	payload := make([]byte, b.random.IntN(200))
	for i := range payload {
		payload[i] = byte(b.random.IntN(256))
	}
	switch b.random.IntN(4) {
	case 0:
		return payload
	case 1:
		payload = []byte(`{"min":1,"max":9,"agent":"7fac99de-9ad6-4ab4-a42b-e10bbdb55c3b","name":"b","id":"x","secret":"y"}`)
	case 2:
		payload = append([]byte{11}, "link.report{}"...)
	}
	frame := binary.BigEndian.AppendUint32([]byte{byte(b.random.IntN(16))}, uint32(len(payload)+b.random.IntN(2)*b.random.IntN(1<<30)))
	return append(frame, payload...)
}

// unknown is a certificate of a key that nobody has heard of.
func unknown(t *testing.T) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(crand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}
