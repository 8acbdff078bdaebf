package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/httpapi"
	"github.com/twinspan/twinspan/internal/httpapi/agenttest"
	"github.com/twinspan/twinspan/internal/setup"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"twinspan": func() { os.Exit(Main(deps())) },
	})
}

// deps are the real ones but for the agent, which answers what fake.json in the
// working directory says, and the demonstration.
func deps() Deps {
	return Deps{
		Version: "1.2.3",
		Poll:    2 * time.Millisecond,
		// A link of these tests stands still only by mistake.
		Standstill: 20 * time.Second,
		Serve: func(ctx context.Context, dir config.Dir, log *slog.Logger) error {
			lock, err := dir.Lock()
			if err != nil {
				return err
			}
			defer lock.Release()
			c, err := dir.Load()
			if err != nil {
				return err
			}
			fake, err := agenttest.Load("fake.json")
			if err != nil {
				return err
			}
			server := &httpapi.Server{Agent: fake, Dir: dir, API: c.API, Version: "1.2.3", Log: log}
			return server.Run(ctx)
		},
		Init: func(ctx context.Context, in InitRequest) (api.Initialised, error) {
			return setup.Init(ctx, setup.Request(in))
		},
		Demo: func(_ context.Context, in DemoRequest) error {
			_, err := fmt.Fprintf(in.Out, "dir=%q exit-after=%v plain=%v\n", in.Dir, in.ExitAfter, in.Plain)
			return err
		},
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			_, port, err := net.SplitHostPort(l.Addr().String())
			env.Setenv("PORT", port)
			env.Setenv("XDG_RUNTIME_DIR", "")
			return errors.Join(err, l.Close())
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await":  await,
			"filled": filled,
			"lines":  lines,
		},
	})
}

// filled waits until something has been written into a file.
func filled(ts *testscript.TestScript, _ bool, args []string) {
	late := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if i, err := os.Stat(ts.MkAbs(args[0])); err == nil && i.Size() > 0 {
			return
		}
		select {
		case <-late:
			ts.Fatalf("nothing is written into %s", args[0])
		case <-tick.C:
		}
	}
}

// await waits until the agent in a directory answers.
func await(ts *testscript.TestScript, _ bool, args []string) {
	d, err := config.OpenDir(ts.MkAbs(args[0]))
	ts.Check(err)
	c, err := client.New(client.Dial{Socket: d.Socket()})
	ts.Check(err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err = c.Agent(ctx); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("%v", err)
		case <-tick.C:
		}
	}
}

// lines checks the number of lines of stdout or stderr.
func lines(ts *testscript.TestScript, _ bool, args []string) {
	if got := strings.Count(ts.ReadFile(args[0]), "\n"); fmt.Sprint(got) != args[1] {
		ts.Fatalf("%d lines, want %s:\n%s", got, args[1], ts.ReadFile(args[0]))
	}
}

// every calls f with every command that a user can give.
func every(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, c := range cmd.Commands() {
		if !c.Hidden && c.Name() != "help" && c.Name() != "completion" {
			every(c, f)
		}
	}
}

func TestHelpReadsAsWritten(t *testing.T) {
	t.Setenv("TWINSPAN_DIR", "/secret/place") // must not show
	a := &app{deps: deps()}
	known := map[string]bool{}
	var page bytes.Buffer
	page.WriteString("# The commands\n\n<!-- written by make generated from the commands' own help -->\n\n`twinspan man DIR` writes the same as manual pages.\n")
	every(a.root(), func(c *cobra.Command) {
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".txt"
		known[name] = true
		var out, errs bytes.Buffer
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		if code := Run(t.Context(), deps(), args, nil, &out, &errs); code != exitDone || errs.Len() > 0 {
			t.Errorf("%v: %d, %s", args, code, errs.String())
		}
		fmt.Fprintf(&page, "\n## %s\n\n```\n%s```\n", c.CommandPath(), out.String())
		golden := filepath.Join("testdata", "help", name)
		if *update {
			if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || !bytes.Equal(want, out.Bytes()) {
			t.Errorf("%s differs (%v); run make generated and review the difference", golden, err)
		}
		for _, l := range strings.Split(out.String(), "\n") {
			if len(l) > 130 {
				t.Errorf("%v: a line of %d columns: %s", args, len(l), l)
			}
		}
		if c.Short == "" || c.Long == "" {
			t.Errorf("%v has no text", args)
		}
	})
	reference := filepath.Join("..", "..", "docs", "cli.md")
	if *update {
		if err := os.WriteFile(reference, page.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(reference); err != nil || !bytes.Equal(text, page.Bytes()) {
		t.Errorf("docs/cli.md is stale (%v): run make generated", err)
	}
	files, err := os.ReadDir(filepath.Join("testdata", "help"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !known[f.Name()] {
			t.Errorf("%s is of no command", f.Name())
		}
	}
}
