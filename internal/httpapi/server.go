package httpapi

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/access"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/metrics"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/telemetry"
)

const (
	headerTimeout   = 10 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 3 * time.Second
	readyTimeout    = 5 * time.Second
)

// Server serves the interface of one agent. All fields are required; they are
// not changed after Run began. The caller holds the lock of the directory.
type Server struct {
	Agent   Agent
	Dir     config.Dir
	API     config.API
	Version string
	Log     *slog.Logger
	// Listening, when set, is called once all listeners are open.
	Listening func()
	// Face, when set, makes what browsers are shown over TCP, below FacePath.
	Face func(*Inside) (http.Handler, error)
}

// Run serves until ctx ends, gives requests under way a moment, and returns when
// everything is closed. It returns nil when ctx ended it.
func (s *Server) Run(ctx context.Context) error {
	socket, err := s.listenSocket()
	if err != nil {
		return err
	}
	listeners := []serving{{socket, s.socketHandler()}}
	if s.API.Listen != "" {
		listener, handler, err := s.listenTCP()
		if err != nil {
			socket.Close()
			return err
		}
		listeners = append(listeners, serving{listener, handler})
	}
	defer s.Dir.ReleaseSocket()
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error { return s.serve(ctx, l) })
	}
	if s.Listening != nil {
		s.Listening()
	}
	return group.Wait()
}

type serving struct {
	listener net.Listener
	handler  http.Handler
}

func (s *Server) serve(ctx context.Context, l serving) error {
	server := &http.Server{
		Handler:           l.handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withConn,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	s.Log.Info("api listening", telemetry.Address, l.listener.Addr().String())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l.listener) }()
	select {
	case err := <-ended:
		return problem.Wrap(err, problem.Resource, "api_stopped", "serve the API")
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return problem.Wrap(err, problem.Resource, "api_stopped", "serve the API")
	}
	return nil
}

func (s *Server) listenSocket() (net.Listener, error) {
	path, err := s.Dir.PrepareSocket()
	if err != nil {
		return nil, err
	}
	// What a killed agent left: with the lock in hand it belongs to nobody.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, problem.Wrap(err, problem.Resource, "dir_not_writable", "remove the old socket")
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, problem.Wrap(err, problem.Resource, "api_not_listening", "listen on the Unix socket of the API")
	}
	// The directory around it is closed to others; the mode says so once more.
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, problem.Wrap(err, problem.Resource, "dir_not_writable", "close the socket to others")
	}
	return listener, nil
}

func (s *Server) listenTCP() (net.Listener, http.Handler, error) {
	host, _, err := net.SplitHostPort(s.API.Listen)
	if err != nil {
		return nil, nil, problem.New(problem.Invalid, "api_invalid", "the address of the API is not HOST:PORT")
	}
	if err := access.Ensure(s.Dir.Access(), host, s.API); err != nil {
		return nil, nil, err
	}
	certificate, err := access.Certificate(s.Dir.Access(), s.API)
	if err != nil {
		return nil, nil, err
	}
	guard, err := access.LoadGuard(s.Dir.Access())
	if err != nil {
		return nil, nil, err
	}
	mux, described := s.mux()
	refused := func(r *http.Request) {
		_, r.Pattern = mux.Handler(r)
		tell(s.Agent, described, r, &operation{code: errReader.Code})
	}
	inner := recorded(s.Agent, described, watchable(mux))
	handler := guarded(guard, inner, refused)
	if s.Face != nil {
		face, err := s.Face(&Inside{guard: guard, certificate: certificate.Leaf, listen: host, answer: func(e access.Entry) http.Handler { return admitted(e, inner, refused) }})
		if err != nil {
			return nil, nil, err
		}
		handler = faced(face, handler)
	}
	listener, err := net.Listen("tcp", s.API.Listen)
	if err != nil {
		return nil, nil, problem.Wrap(err, problem.Resource, "api_not_listening", "listen for the API").
			WithHint("another process has the port, or the address is not of this machine: see [api] listen in twinspan.toml")
	}
	listener = tls.NewListener(newDoorListener(listener, s.Log), &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{certificate},
		NextProtos:   []string{"http/1.1"},
	})
	return listener, handler, nil
}

// mux holds what both listeners serve.
func (s *Server) mux() (*http.ServeMux, huma.API) {
	mux := http.NewServeMux()
	described := newAPI(mux, s.Agent, func(ctx context.Context, operation string, err error) {
		s.Log.LogAttrs(ctx, slog.LevelError, "request failed", slog.String("operation", operation), telemetry.Failure(err))
	})
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		write(w, http.StatusOK, "application/json", described.OpenAPI())
	})
	mux.Handle("GET /docs", docsPage(described.OpenAPI()))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	s.roles(mux)
	mux.Handle("GET /metrics", metrics.Handler(s.Agent, s.Version))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, problem.New(problem.NotFound, "no_such_path", "there is no %s %s", r.Method, r.URL.EscapedPath()).
			WithHint("the paths are in /docs and /openapi.json"), http.StatusNotFound)
	})
	return mux, described
}

// ready says whether the agent can work: its server answers.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	info, err := s.Agent.Info(ctx)
	if err == nil && !info.Postgres.Connected {
		err = problem.New(problem.Transient, "postgres_away", "the agent has no connection to its PostgreSQL server")
	}
	if err != nil {
		refuse(w, err, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// socketHandler adds what only the owner of the directory may see.
func (s *Server) socketHandler() http.Handler {
	mux, described := s.mux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return recorded(s.Agent, described, watchable(mux))
}

func refuse(w http.ResponseWriter, err error, status int) {
	f := failed(err)
	f.Status = status
	write(w, status, problemType, f)
}

func write(w http.ResponseWriter, status int, mediaType string, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "not marshalled", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	w.Write(append(text, '\n'))
}
