package pgtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Every setting that is drawn is what the agent's sessions have, and no session of this
// package; the same seed draws the same.
func TestOddSettingsAreMade(t *testing.T) {
	t.Setenv(OddEnv, "always")
	s := Start(t, MayBeOdd())
	database := s.Database(t)
	if !s.drawn.any() {
		t.Fatalf("nothing was drawn (%s=%d)", SeedEnv, Seed())
	}
	config, err := pgx.ParseConfig(s.AgentDSN())
	if err != nil {
		t.Fatal(err)
	}
	config.Database = database
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	// A level hides those before it, and each setting is drawn for one.
	for level := range s.drawn {
		for name, want := range s.drawn[level] {
			var got string
			if err := conn.QueryRow(t.Context(), `SELECT current_setting($1)`, pgx.QueryExecModeExec, name).Scan(&got); err != nil || got != want {
				t.Errorf("%s of %s is %q, %v", name, s.drawn, got, err)
			}
		}
	}
	for name, want := range settled {
		if got := Query(t, s.DSN(database), `SELECT current_setting($1)`, name)[0][0]; got != want {
			t.Errorf("%s of a session of this package is %q, not %q", name, got, want)
		}
	}
	for seed := range uint64(20) {
		a, b := draw(rand.New(rand.NewPCG(seed, 1))), draw(rand.New(rand.NewPCG(seed, 1)))
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("seed %d drew %v and then %v", seed, a, b)
		}
	}
	t.Setenv(OddEnv, "never")
	if d := draw(rand.New(rand.NewPCG(1, 1))); d.any() {
		t.Errorf("drawn although never wanted: %v", d)
	}
}
