package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/twinspan/twinspan/internal/instance"
)

// standby makes a physical standby of the source's server: what commits cross to
// without being decoded. It is a measure for the lag alone. stop ends it.
func (r *rig) standby(ctx context.Context) (s *server, stop func(), err error) {
	port, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	s = &server{name: "standby", password: r.a.password, ended: make(chan error, 1), Server: &instance.Server{
		Dir: filepath.Join(r.dir, "standby"), Port: port, Settings: map[string]string{"hot_standby": "on"}, Binaries: r.a.Binaries,
		NoRestart: true, DieWithParent: true, StopTimeout: 20 * time.Second,
	}}
	for k, v := range settings {
		s.Settings[k] = v
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "superuser-password"), []byte(r.a.password+"\n"), 0o600); err != nil {
		return nil, nil, err
	}
	_, err = command(ctx, nil, r.a.Binaries.Path("pg_basebackup"), "-D", s.DataDir(), "-R", "-X", "stream", "--checkpoint=fast", "-w", "-d", r.a.conninfo("postgres", overSocket))
	if err != nil {
		return nil, nil, err
	}
	// The server's user is the one that the source's data belong to.
	if _, err := command(ctx, nil, "bash", "-c", `mkdir -p "$0/run" && chmod 700 "$0/run" && chown -R --reference="$1" "$0/data" "$0/run"`, s.Dir, r.a.DataDir()); err != nil {
		return nil, nil, err
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	go func() { s.ended <- s.Run(life) }()
	stop = func() {
		end()
		<-s.ended
	}
	if err := s.WaitReady(ctx); err != nil {
		end()
		return nil, nil, errors.Join(err, <-s.ended)
	}
	return s, stop, nil
}

// standbyLag measures a physical standby as lag measures followers.
func (f *field) standbyLag(ctx context.Context, out *results) error {
	s, stop, err := f.r.standby(ctx)
	if err != nil {
		return fmt.Errorf("standby: %w", err)
	}
	defer stop()
	return f.lagOn(ctx, out, "standby", s, source)
}
