// Command twinspan is the one program of Twinspan: the agent, the command line
// that speaks to it, and the demonstration. This file says what they are made of.
package main

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/agent"
	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/demo"
	"github.com/twinspan/twinspan/internal/setup"
)

func main() {
	os.Exit(cli.Main(cli.Deps{
		Version: version(),
		Serve: func(ctx context.Context, dir config.Dir, log *slog.Logger) error {
			a := &agent.Agent{Dir: dir, Version: version(), Log: log}
			return a.Run(ctx)
		},
		Init: func(ctx context.Context, in cli.InitRequest) (api.Initialised, error) {
			return setup.Init(ctx, setup.Request(in))
		},
		Join: func(ctx context.Context, in cli.MemberRequest) (api.Initialised, error) {
			return setup.JoinInstance(ctx, setup.Join(in))
		},
		Demo: func(ctx context.Context, in cli.DemoRequest) error {
			return demo.Run(ctx, demo.Request(in))
		},
	}))
}

// version is that of the module, as the build recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}
