package agent

import (
	"context"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/telemetry"
)

// checkpointTime bounds the checkpoint before an update: what is written then, with sessions going on, the end of the server has not to write.
const checkpointTime = 5 * time.Minute

// lookAtPrograms looks which release is installed beside the managed server, and which it runs. It fails where either is not known; that is
// noted for whoever looks at the instance.
func (a *Agent) lookAtPrograms(ctx context.Context) (installed, running instance.Release, err error) {
	s := &a.sizing
	installed, err = s.asking.Of(a.managed.Binaries)
	running, asked := a.running(ctx)
	if asked != nil && ctx.Err() == nil {
		a.Log.Debug("the server does not tell which release it runs", telemetry.Failure(asked))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.installed, s.programs, s.running = installed, problem.As(err), running
	if err == nil {
		err = asked
	}
	return installed, running, err
}

// running asks the server which release it runs, which whoever upgrades a package may have changed.
func (a *Agent) running(ctx context.Context) (instance.Release, error) {
	server, err := a.server.Identify(ctx)
	if err != nil {
		return instance.Release{}, err
	}
	a.facts.Store(&server)
	return instance.ReleaseOf(server.Number), nil
}

// UpdateInstance implements httpapi.Agent.
func (a *Agent) UpdateInstance(ctx context.Context) (out api.InstanceUpdate, err error) {
	if a.managed == nil {
		return out, notManaged()
	}
	a.sizing.changing.Lock()
	defer a.sizing.changing.Unlock()
	if a.cluster != nil {
		return a.updateMembers(ctx)
	}
	installed, before, err := a.lookAtPrograms(ctx)
	if err != nil {
		return out, err
	}
	if out.Release = before.String(); !installed.Newer(before) {
		return out, nil
	}
	a.Log.Info("the managed server is restarted, for a newer release is installed", "runs", before, "installed", installed)
	if err := a.checkpoint(ctx); err != nil {
		a.Log.Warn("there was no checkpoint before the restart, which takes longer", telemetry.Failure(err))
	}
	began := time.Now()
	if err := a.managed.Restart(ctx); err != nil {
		return out, err
	}
	took := time.Since(began)
	installed, now, err := a.lookAtPrograms(ctx)
	if err != nil {
		return out, err
	}
	if installed.Newer(now) {
		return out, problem.New(problem.Internal, "instance_update_failed", "the server was restarted, and runs %s still, though %s is installed", now, installed).On(a.managed.Binaries.Dir)
	}
	a.Log.Info("the managed server runs a newer release", "runs", now, "took", took)
	out.Release = now.String()
	out.Servers = []api.ServerUpdate{{From: before.String(), To: now.String(), Led: true, Seconds: took.Seconds()}}
	return out, nil
}

func (a *Agent) checkpoint(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, checkpointTime)
	defer stop()
	conn, err := a.server.Connect(ctx, pg.Session{Name: "instance"})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, `CHECKPOINT`)
	return pg.Classify(err, "write a checkpoint")
}

// updateMembers updates the servers of an instance with members. The agent goes on with it when another member leads.
func (a *Agent) updateMembers(ctx context.Context) (out api.InstanceUpdate, err error) {
	if err := a.serves(); err != nil {
		return out, err
	}
	done, err := a.cluster.Update(ctx)
	if err != nil && len(done) > 0 {
		names := make([]string, 0, len(done))
		for _, u := range done {
			names = append(names, u.Member)
		}
		a.Log.Warn("not every member was updated", "updated", names, telemetry.Failure(err))
	}
	for _, u := range done {
		out.Servers = append(out.Servers, api.ServerUpdate{Member: u.Member, From: u.From.String(), To: u.To.String(), Led: u.Led, Seconds: u.Took.Seconds()})
	}
	s := a.cluster.State()
	for _, m := range s.Members {
		if m.Name == s.Leader {
			out.Release = m.Running.String()
		}
	}
	return out, err
}
