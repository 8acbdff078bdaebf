// Package cli is the command line: a tree of commands, one file per group, that
// speak to a running agent through package client. What needs more than that
// (making an agent, running one, the demonstration) is handed in by main.
//
// The contract: the answer goes to stdout, everything else to stderr; exit
// status 0 is done, 1 failed with one "error:" line and one "hint:" line (with
// -o json the error is an object on stdout too), 2 a wrong command line.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
	"github.com/twinspan/twinspan/internal/tier"
)

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// InitRequest is what init was asked for.
type InitRequest struct {
	Dir     config.Dir
	Name    string
	DSN     string // of an instance that someone else runs
	Managed bool
	Port    int      // of a managed instance; 0 for any
	Listen  string   // of a managed instance; empty for this machine alone
	Allow   []string // of a managed instance: networks that its clients come from
	// NoBackups makes a managed instance without backups.
	NoBackups bool
	// BackupKeyFile and BackupKeyCommand name where the operator keeps the key of the backups; one of them at most.
	BackupKeyFile, BackupKeyCommand string
	// Size is a managed instance's; what is zero of it follows from the rest, or is not declared.
	Size     tier.Size
	Password string // file that takes the superuser's password of a managed instance; empty to answer with it
	Endpoint string // HOST:PORT; empty for the default
	API      string // HOST:PORT; empty for none over TCP
	Connect  bool   // see that the DSN connects
	// Adopt is the id of the agent whose links are taken over, "any" for the one whose links
	// are found; empty for none.
	Adopt string
	Hooks []string // programs for events, as KIND,KIND=PROGRAM
	// Tier is general-purpose, one server, or business-critical, one of several members; empty for the former.
	Tier        string
	Member      string // name of the first member
	MemberPorts []int  // of its Patroni, its etcd for clients and for members; empty for the usual ones, or free ones
	Durability  string // strict or available; empty for strict
}

// MemberRequest is what member join was asked for.
type MemberRequest struct {
	Dir      config.Dir
	Token    string
	Member   string
	Endpoint string
	Port     int
	Ports    []int
	Listen   string
	Allow    []string
	// BackupKeyFile and BackupKeyCommand name where the operator keeps the key of the backups; one of them at most.
	BackupKeyFile, BackupKeyCommand string

	Witness bool
	Version string
}

// DemoRequest is what demo was asked for.
type DemoRequest struct {
	Dir       string        // empty for a temporary directory
	ExitAfter time.Duration // 0 runs until interrupted
	Plain     bool          // print lines, also on a terminal
	Out       io.Writer
}

// Deps is what main hands in. All fields but Poll are required.
type Deps struct {
	Version string
	// Serve runs an agent in its directory until ctx ends.
	Serve func(ctx context.Context, dir config.Dir, log *slog.Logger) error
	// Init makes an agent in a directory.
	Init func(ctx context.Context, in InitRequest) (api.Initialised, error)
	Join func(ctx context.Context, in MemberRequest) (api.Initialised, error)
	// Demo runs the demonstration until ctx ends or its time is over.
	Demo func(ctx context.Context, in DemoRequest) error
	// Poll is how often a link is looked at while waiting; one second when 0.
	Poll time.Duration
	// Standstill is how long a link may stand still while a command waits for it; two
	// minutes when 0.
	Standstill time.Duration
}

// Main runs the command line of this process and returns its exit status. SIGINT
// and SIGTERM end the command cleanly; a SIGINT after either ends it at once. A
// SIGTERM does not, for the kernel may send it more than once: a parent-death signal
// comes with each thread of a killed parent that has been the child's parent
// (kernel/exit.c, forget_original_parent), and an agent that it cuts short leaves its
// managed server running.
func Main(d Deps) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) }) // gives it back its ordinary effect
	return Run(ctx, d, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// Run runs one command line.
func Run(ctx context.Context, d Deps, args []string, in io.Reader, out, errs io.Writer) int {
	if d.Poll == 0 {
		d.Poll = time.Second
	}
	out, errs = terminal.Out(out), terminal.Out(errs)
	a := &app{deps: d, in: in, out: out, errs: errs}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	var failed *failedError
	if errors.As(err, &failed) {
		a.report(failed.err)
		return exitFailed
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	if a.flags.output != "json" && wantsJSON(args) {
		a.flags.output = "json" // a mistake before it kept it from being read
	}
	a.print(api.Error{Kind: string(problem.Invalid), Code: "usage", Text: text, Hint: command.CommandPath() + " --help"})
	return exitUsage
}

// wantsJSON says whether a command line that could not be read asks for JSON.
func wantsJSON(args []string) bool {
	for i, arg := range args {
		switch arg {
		case "--":
			return false
		case "-ojson", "-o=json", "--output=json":
			return true
		case "-o", "--output":
			return i+1 < len(args) && args[i+1] == "json"
		}
	}
	return false
}

// app is one run of the command line: the streams, and the global flags.
type app struct {
	deps  Deps
	in    io.Reader
	out   io.Writer
	errs  io.Writer
	flags struct {
		dir    string
		api    string
		token  string
		output string
		noWait bool
	}
	answered bool // something was printed where the answer is
}

// failedError marks what a command returned, apart from what parsing its command
// line did.
type failedError struct{ err error }

func (e *failedError) Error() string { return e.err.Error() }
func (e *failedError) Unwrap() error { return e.err }

// runs adapts a command's body.
func runs(body func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := body(cmd, args); err != nil {
			return &failedError{err}
		}
		return nil
	}
}

// report prints an error by the contract: there is always a hint.
func (a *app) report(err error) {
	code, kind, text, hint := explain(err)
	if code == "request_invalid" { // by the REST interface, whose rules name fields
		text, hint = ofFlags(text), ""
	}
	if hint == "" {
		hint = remedy(kind)
	}
	e := api.Error{Kind: string(kind), Code: code, Text: text, Hint: hint}
	var sent *api.Error
	if errors.As(err, &sent) {
		e.Subject = sent.Subject
	} else {
		e.Subject = problem.As(err).Subject
	}
	a.print(e)
}

// print writes an error: two lines for people and, with -o json, the object of the REST
// interface where the answer would be, unless that was printed.
func (a *app) print(e api.Error) {
	line := strings.NewReplacer("\r\n", " ", "\n", " ").Replace // messages of servers have several
	fmt.Fprintf(a.errs, "error: [%s] %s\nhint: %s\n", e.Code, line(e.Text), line(e.Hint))
	if a.flags.output != "json" || a.answered {
		return
	}
	if text, err := json.MarshalIndent(e, "", "  "); err == nil {
		fmt.Fprintf(a.out, "%s\n", text)
	}
}

// errorOf is the error with which a command ends because of a problem that the agent shows.
func errorOf(kind problem.Kind, p api.Problem) *api.Error {
	return &api.Error{Kind: string(kind), Code: p.Code, Subject: p.Subject, Text: p.Title, Hint: p.Hint}
}

// remedy is the hint of an error that has none of its own.
func remedy(kind problem.Kind) string {
	switch kind {
	case problem.Invalid:
		return "correct what the command was given; --help describes it"
	case problem.NotFound:
		return "see that the name is right"
	case problem.Conflict:
		return "look at what there is already, with one of the list commands"
	case problem.Unauthorised:
		return "see that the agent, or its role in PostgreSQL, may do this"
	case problem.Incompatible:
		return "twinspan check says what does not fit"
	case problem.Transient:
		return "try again; the agent's log says more when it stays so"
	case problem.Resource:
		return "see that there is space, and that the directory can be written"
	case problem.Diverged:
		return "twinspan link show NAME says what differs"
	case problem.Cancelled:
		return "run the command again to go on"
	}
	return "this may be a defect: report it with what the agent's log says"
}

// explain returns what to print of an error, on one line each. An error of the
// agent keeps its text, with the context that was wrapped around it.
func explain(err error) (code string, kind problem.Kind, text, hint string) {
	var sent *api.Error
	if errors.As(err, &sent) {
		text := err.Error()
		if sent.Subject != "" && !strings.Contains(text, sent.Subject) {
			text = sent.Subject + ": " + text
		}
		return sent.Code, problem.Kind(sent.Kind), line(text), line(sent.Hint)
	}
	p := problem.As(err)
	return p.Code, p.Kind, line(p.Error()), line(p.Hint)
}

func line(s string) string { return strings.Join(strings.Fields(s), " ") }

// dir returns the agent's directory.
func (a *app) dir() (config.Dir, error) {
	dir, _, _ := a.address()
	return config.OpenDir(dir)
}

// dial returns a client of the agent that flags or environment name.
func (a *app) dial() (*client.Client, error) {
	path, url, token := a.address()
	if url != "" {
		return client.New(client.Dial{URL: url, Token: token})
	}
	if path == "" {
		return nil, problem.New(problem.Invalid, "agent_not_named", "no agent is named").
			WithHint("give --dir DIR or set TWINSPAN_DIR, or give --api URL with --token TOKEN")
	}
	d, err := config.OpenDir(path)
	if err != nil {
		return nil, err
	}
	if err := initialised(d); err != nil {
		return nil, err
	}
	return client.New(client.Dial{Socket: d.Socket()})
}

// initialised refuses a directory in which there is no agent.
func initialised(d config.Dir) error {
	if _, err := os.Stat(d.Path()); err != nil {
		return problem.Wrap(err, problem.NotFound, "not_initialised", "the agent's directory").
			WithHint("name the directory that was given to twinspan init")
	}
	if !d.Initialised() {
		return problem.New(problem.NotFound, "not_initialised", "there is no agent in %s", d.Path()).
			WithHint("create one with: twinspan init --dir DIR --name NAME --postgres DSN")
	}
	return nil
}

// asks adapts the body of a command that needs the agent.
func (a *app) asks(body func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return runs(func(cmd *cobra.Command, args []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		return body(cmd.Context(), c, args)
	})
}

// say prints a line for people: never the answer.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.errs, format+"\n", args...) }
