package cli

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/web"
)

const uiLong = `Serve the web pages of an agent on this machine, and print the address to open: pages for
links, databases, backups, peers, problems and events, and wizards to link, fail over,
migrate and rejoin. The address works once, for ten minutes; whoever opens it may do what
this command may. The pages are there until the command is interrupted (Ctrl-C).

They are served on the loopback address alone. To see them on another machine, forward the
port with ssh:

    ssh -L 8443:127.0.0.1:8443 HOST twinspan ui --dir DIR --listen 127.0.0.1:8443

An agent whose twinspan.toml has a [api] listen serves the same pages there to everybody
with a token, at https://HOST:PORT/, without this command.`

// What is waited for: the head of a request, and requests under way at the end.
const (
	uiHeader   = 10 * time.Second
	uiShutdown = 2 * time.Second
)

// browserReads is how long a browser that was started has to read where it is to go.
const browserReads = 10 * time.Second

// codeHolds is how long the code of an address works.
const codeHolds = 10 * time.Minute

func (a *app) uiCommand() *cobra.Command {
	listen, open := "", false
	cmd := &cobra.Command{
		Use:     "ui",
		Short:   "Serve the web pages on this machine and print their address",
		GroupID: "agent",
		Long:    uiLong,
		Example: `  twinspan ui --dir /var/lib/twinspan
  twinspan ui --open
  twinspan ui --listen 127.0.0.1:8443`,
		Args: cobra.NoArgs,
		PreRunE: func(*cobra.Command, []string) error {
			host, _, err := net.SplitHostPort(listen)
			if err != nil {
				return errors.New("--listen is HOST:PORT, as 127.0.0.1:8443")
			}
			if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
				return errors.New("--listen is an address of this machine alone, as 127.0.0.1:8443: for others there is [api] listen in twinspan.toml")
			}
			return nil
		},
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error { return a.ui(ctx, c, listen, open) }),
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "`address` on this machine, HOST:PORT; port 0 is any that is free")
	cmd.Flags().BoolVar(&open, "open", false, "open the address in the browser of this machine")
	return cmd
}

// pagesAt is what ui answers.
type pagesAt struct {
	URL     string    `json:"url"`     // works once
	Expires time.Time `json:"expires"` // when it ceases to
}

func (a *app) ui(ctx context.Context, c *client.Client, listen string, open bool) error {
	if _, err := c.Agent(ctx); err != nil { // said now, rather than by the first page
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return problem.Wrap(err, problem.Resource, "port_unavailable", "listen for the web pages").
			WithHint("give another port with --listen, or none")
	}
	defer listener.Close()
	who := &local{client: c, code: rand.Text(), until: time.Now().Add(codeHolds)}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return problem.Wrap(err, problem.Internal, "internal", "read the address of the web pages")
	}
	log := slog.New(slog.NewTextHandler(a.errs, &slog.HandlerOptions{Level: slog.LevelWarn}))
	pages, err := web.New(web.Config{Entrance: who, Version: a.deps.Version, Log: log, Cookie: "twinspan-" + port, OneTime: true})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(web.Base, pages)
	mux.Handle("/{$}", http.RedirectHandler(web.Base, http.StatusSeeOther))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: uiHeader, BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()

	at := pagesAt{URL: "http://" + listener.Addr().String() + web.Base + "sign-in#" + who.code, Expires: who.until.UTC().Truncate(time.Second)}
	if err := a.answer(at, func(w io.Writer) { fmt.Fprintln(w, at.URL) }); err != nil {
		return err
	}
	if open {
		opening := sync.WaitGroup{}
		defer opening.Wait()
		opening.Go(func() {
			if err := browse(ctx, at.URL); err != nil {
				a.say("no browser could be opened: %v", err)
			}
		})
	}
	a.say("Open the address in a browser; it works once, until %s. Ctrl-C ends the pages.", when(at.Expires))
	select {
	case err := <-ended:
		return problem.Wrap(err, problem.Resource, "api_stopped", "serve the web pages")
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), uiShutdown)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		server.Close()
	}
	<-ended
	return nil // it was asked to end
}

// browse opens an address in the browser of this machine, by a file that only this user
// reads: lists of processes, which show a program's arguments, would show the code.
func browse(ctx context.Context, address string) error {
	f, err := os.CreateTemp("", "twinspan-*.html") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintf(f, "<!doctype html><meta http-equiv=\"refresh\" content=\"0;url=%s\"><a href=\"%s\">Twinspan</a>\n", address, address)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	program := "xdg-open"
	if runtime.GOOS == "darwin" {
		program = "open"
	}
	if err := exec.CommandContext(ctx, program, f.Name()).Run(); err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	select { // the browser reads the file in its own time
	case <-ctx.Done():
	case <-time.After(browserReads):
	}
	return nil
}

// local lets in whoever has the code, once, and asks the agent as the command does.
type local struct {
	client *client.Client

	mu    sync.Mutex
	code  string // empty once it was used
	until time.Time
}

// localKey is the key of the one visitor.
const localKey = "local"

// Enter implements web.Entrance.
func (l *local) Enter(secret string) (web.Visitor, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	given, code := sha256.Sum256([]byte(secret)), sha256.Sum256([]byte(l.code))
	if l.code == "" || time.Now().After(l.until) || subtle.ConstantTimeCompare(given[:], code[:]) != 1 {
		return web.Visitor{}, false
	}
	l.code = ""
	return l.Again(localKey)
}

// Again implements web.Entrance.
func (l *local) Again(key string) (web.Visitor, bool) {
	name := "you"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	// What a reader's token may not, the agent refuses.
	return web.Visitor{Key: key, Name: name, Operator: true}, key == localKey
}

// Client implements web.Entrance.
func (l *local) Client(web.Visitor, string) (*client.Client, error) { return l.client, nil }

// Serves implements web.Entrance: under this machine's own names alone, so that a page from
// elsewhere cannot have its name lead here.
func (l *local) Serves(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Welcome implements web.Entrance.
func (l *local) Welcome(*http.Request) {}
