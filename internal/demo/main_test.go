package demo

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/agent"
	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/setup"
)

// patience bounds every wait; machines for tests can be slow.
const patience = 3 * time.Minute

// TestMain makes the test binary the program itself when it is called as such:
// the demonstration starts its agents by calling its own executable.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "serve" || os.Args[1] == "demo") {
		os.Exit(cli.Main(cli.Deps{
			Version: "test",
			Serve: func(ctx context.Context, dir config.Dir, log *slog.Logger) error {
				return (&agent.Agent{Dir: dir, Version: "test", Log: log}).Run(ctx)
			},
			Init: func(ctx context.Context, in cli.InitRequest) (api.Initialised, error) {
				return setup.Init(ctx, setup.Request(in))
			},
			Demo: func(ctx context.Context, in cli.DemoRequest) error { return Run(ctx, Request(in)) },
		}))
	}
	pgtest.Main(m)
}

func withCancel(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return ctx, cancel
}
