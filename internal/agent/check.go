package agent

import (
	"context"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/dbroles"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// assess looks at both sides of a link that may be made, and at the way between.
// Without a peer it looks at this side alone.
func (a *Agent) assess(ctx context.Context, database, peerName, peerDatabase string) (assess.Report, error) {
	dump := 0
	if _, major, err := instance.FindClient("pg_dump", 0); err == nil {
		dump = major
	}
	primary := assess.Primary{DSN: a.server.WithDatabase(database), DumpMajor: dump}
	report, err := primary.Look(ctx)
	if err != nil || peerName == "" {
		return report, err
	}
	var there link.CheckResponse
	request := link.CheckRequest{Source: report.Source, Needs: report.Needs, Database: peerDatabase}
	if err := a.endpoint.Call(ctx, peerName, link.MethodCheck, request, &there); err != nil {
		return report, err
	}
	rate, err := link.Probe(ctx, a.endpoint, peerName)
	if err != nil {
		return report, err
	}
	rate, err = assess.Remeasure(rate, &report.Facts, func() (float64, error) { return link.Probe(ctx, a.endpoint, peerName) },
		func() (float64, error) { return primary.LogRate(ctx) })
	if err != nil {
		return report, err
	}
	status, _ := a.endpoint.Status(peerName)
	path := assess.Path{Peer: peerName, Dialled: status.Dialled, RoundTrip: status.RoundTrip, Clock: status.ClockDifference, Rate: rate}
	report.Findings = append(report.Findings, there.Findings...)
	report.Findings = append(report.Findings, assess.JudgePath(path, report.Facts)...)
	return report, nil
}

// createRoles has the secondary's agent make the roles that use the database, when
// that is asked for. They stay whatever becomes of the link.
func (a *Agent) createRoles(ctx context.Context, in api.CreateLink) ([]catalog.Notice, error) {
	if !in.CreateRoles {
		return nil, nil
	}
	conn, err := a.server.WithDatabase(in.Database).Connect(ctx, pg.Session{Name: in.Name + "/roles"})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	roles, err := pg.NeededRoles(ctx, conn)
	if err != nil {
		return nil, err
	}
	if err := pg.ReadPasswords(ctx, conn, roles, in.WithPasswords); err != nil {
		return nil, err
	}
	var made dbroles.MakeResponse
	err = a.endpoint.Call(ctx, in.Peer, dbroles.MethodMake, dbroles.MakeRequest{Name: in.Name, Database: in.PeerDatabase, Roles: roles}, &made)
	return made.Notices, err
}

// Check implements httpapi.Agent.
func (a *Agent) Check(ctx context.Context, in api.CheckRequest) (api.Check, error) {
	if in.Peer != "" {
		if _, err := a.peerNamed(in.Peer); err != nil {
			return api.Check{}, err
		}
	}
	if in.PeerDatabase == "" {
		in.PeerDatabase = in.Database
	}
	report, err := a.assess(ctx, in.Database, in.Peer, in.PeerDatabase)
	if err != nil {
		return api.Check{}, err
	}
	out := api.Check{Database: in.Database, Peer: in.Peer, Findings: []api.Finding{}}
	for _, severity := range []problem.Severity{problem.Blocks, problem.Warns, problem.Informs} {
		for _, f := range report.Findings {
			if f.Severity == severity {
				out.Findings = append(out.Findings, api.Finding{Code: f.Code, Severity: api.Severity(f.Severity), Object: f.Object, Why: f.Why, Remedy: f.Remedy})
			}
		}
	}
	return out, nil
}
