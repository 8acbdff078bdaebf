package instance_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestServerIsGivenOtherSettings(t *testing.T) {
	s := newServer(t)
	before, err := s.Space()
	if err != nil || before.Used < 20<<20 || before.Free <= 0 {
		t.Fatalf("%+v, %v", before, err)
	}
	if err := s.Restart(t.Context()); problem.CodeOf(err) != "server_stopped" {
		t.Errorf("restart of a server that does not run: %v", err)
	}
	stop := run(t, s)
	show := func(name string) string {
		t.Helper()
		return fmt.Sprint(pgtest.Query(t, s.DSN(), `SELECT current_setting('`+name+`')`)[0][0])
	}
	settings := quick()
	settings["work_mem"], settings["max_connections"] = "7MB", "77"
	reads, err := s.Apply(settings)
	if err != nil || !reads {
		t.Fatalf("%t, %v", reads, err)
	}
	pgtest.Eventually(t, patience, func() error {
		if got := show("work_mem"); got != "7MB" {
			return fmt.Errorf("work_mem is %s", got)
		}
		return nil
	})
	if got := fmt.Sprint(show("max_connections"), pgtest.Query(t, s.DSN(), `SELECT name FROM pg_settings WHERE pending_restart`)); got != "300[[max_connections]]" {
		t.Errorf("before the restart: %s", got)
	}
	if reads, err := s.Apply(settings); reads || err != nil {
		t.Errorf("the same settings again: %t, %v", reads, err)
	}
	pid := s.PID()
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := show("max_connections"); got != "77" || s.PID() == pid {
		t.Errorf("after the restart: %s, process %d after %d", got, s.PID(), pid)
	}
	// With settings with which it cannot start, the problem is told, and it is started with those of before.
	wrong := quick()
	wrong["shared_buffers"] = "100000GB"
	if _, err := s.Apply(wrong); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); problem.CodeOf(err) != "settings_invalid" && problem.CodeOf(err) != "memory_short" {
		t.Errorf("with wrong settings: %v", err)
	}
	if _, err := s.Apply(settings); err != nil {
		t.Fatal(err)
	}
	waitReady(t, s)
	if got := show("max_connections"); got != "77" {
		t.Errorf("after wrong settings: %s", got)
	}
	// What lies in a tablespace counts.
	space := filepath.Join(pgtest.Dir(t), "space")
	if err := s.MakeDir(space); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, s.DSN(), `CREATE TABLESPACE elsewhere LOCATION '`+space+`'`)
	first, err := s.Space()
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, s.DSN(), `CREATE TABLE big TABLESPACE elsewhere AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 20000)`)
	pgtest.Exec(t, s.DSN(), `CHECKPOINT`)
	second, err := s.Space()
	if grown := second.Used - first.Used; err != nil || grown < 20<<20 {
		t.Errorf("a table of 20 MB and its log took %d bytes: %v", grown, err)
	}
	stop()
}
