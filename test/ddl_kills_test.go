package test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// A schema change that a reader of the twin stands in the way of is shown, and
// made when the reader is gone.
func TestSchemaChangeWaitsForReaders(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "waits")
	a := p.A.Server.DSN("waits")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "waits", "waits")
	p.WaitPhase(t, "waits", api.Replicating)
	reader := pgtest.Conn(t, p.B.Server.DSN("waits"))
	if _, err := reader.Exec(t.Context(), `BEGIN; SELECT count(*) FROM t`); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, a, `BEGIN; INSERT INTO t VALUES (1); ALTER TABLE t ADD v int; INSERT INTO t VALUES (2, 2); COMMIT`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.A.Client.Link(t.Context(), "waits")
		if err != nil {
			return err
		}
		for _, problem := range l.Problems {
			if problem.Code == "schema_change_waits" && problem.Subject == "public.t" && problem.Hint != "" {
				return nil
			}
		}
		return fmt.Errorf("problems %+v", l.Problems)
	})
	if _, err := reader.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	sameStructure(t, p, "waits", "waits")
	l, err := p.B.Client.Link(t.Context(), "waits")
	if err != nil || len(l.Problems) > 0 {
		t.Errorf("problems remain: %+v, %v", l.Problems, err)
	}
}

// Agents and the secondary's server are killed while schema changes cross: each is
// made once.
func TestSchemaChangesSurviveKills(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerB: []pgtest.Option{pgtest.WithSetting("fsync", "on")}})
	p.A.Server.CreateDatabase(t, "kills")
	a := p.A.Server.DSN("kills")
	pgtest.Exec(t, a, `CREATE TABLE counted (id serial PRIMARY KEY, n int)`)
	p.Create(t, "kills", "kills")
	p.WaitPhase(t, "kills", api.Replicating)
	const rounds = 20
	done := make(chan error, 1)
	go func() {
		conn := pgtest.Conn(t, a)
		for i := range rounds {
			create := fmt.Sprintf(`BEGIN; CREATE TABLE k%[1]d AS SELECT i, random() AS r FROM generate_series(1, 300) i; ALTER TABLE k%[1]d ADD u uuid DEFAULT gen_random_uuid();
				INSERT INTO counted (n) VALUES (%[1]d); ALTER TABLE counted ADD c%[1]d int DEFAULT %[1]d; COMMIT`, i)
			for _, sql := range []string{create, fmt.Sprintf(`CREATE INDEX CONCURRENTLY ON k%d (i)`, i)} {
				if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
					done <- err
					return
				}
			}
		}
		done <- nil
	}()
	for _, kill := range []func(){
		func() { p.B.Kill(); p.B.Start() }, func() { p.A.Kill(); p.A.Start() },
		func() { p.B.Server.Kill(); p.B.Server.Restart() }, func() { p.B.Kill(); p.B.Start() },
	} {
		pause(t, 300*time.Millisecond)
		kill()
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	sameStructure(t, p, "kills", "kills")
}
