package member

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/twinspan/twinspan/internal/problem"
)

// patroni asks the Patronis of an instance, over their REST interface.
type patroni struct{ http *http.Client }

// standing is what a Patroni says of its server (GET /patroni).
type standing struct {
	State    string `json:"state"` // running, stopped, starting, ...
	Role     string `json:"role"`  // primary, replica
	Timeline int    `json:"timeline"`
	Sync     bool   `json:"sync_standby"`
	Version  int    `json:"server_version"` // 150018
	Streams  string `json:"replication_state"`
}

// member of GET /cluster.
type clusterMember struct {
	Name     string          `json:"name"`
	Role     string          `json:"role"`  // leader, sync_standby, replica
	State    string          `json:"state"` // running, streaming, stopped, ...
	Timeline int             `json:"timeline"`
	Lag      json.RawMessage `json:"lag"` // bytes, or "unknown"
}

func (m clusterMember) lag() *int64 {
	var n int64
	if m.Lag == nil || json.Unmarshal(m.Lag, &n) != nil {
		return nil
	}
	return &n
}

func (p patroni) ask(ctx context.Context, method, url string, in, out any) (status int, err error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, err
	}
	response, err := p.http.Do(request)
	if err != nil {
		return 0, problem.Wrap(err, problem.Transient, "member_patroni_away", "Patroni does not answer").WithHint("its log in instance/member of the agent's directory says more")
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, mostAnswer))
	if err != nil {
		return 0, err
	}
	if out == nil {
		if response.StatusCode >= 300 {
			return response.StatusCode, fmt.Errorf("%s: %.300s", response.Status, text)
		}
		return response.StatusCode, nil
	}
	return response.StatusCode, json.Unmarshal(text, out)
}

// standing asks a member's Patroni how its server stands.
func (p patroni) standing(ctx context.Context, m Member) (standing, error) {
	var out standing
	_, err := p.ask(ctx, http.MethodGet, m.restURL()+"/patroni", nil, &out)
	return out, err
}

// cluster asks a member's Patroni for all servers.
func (p patroni) cluster(ctx context.Context, m Member) ([]clusterMember, error) {
	var out struct {
		Members []clusterMember `json:"members"`
	}
	_, err := p.ask(ctx, http.MethodGet, m.restURL()+"/cluster", nil, &out)
	return out.Members, err
}

// dynamic is the part of Patroni's configuration in etcd that agents change.
type dynamic struct {
	Strict bool                      `json:"synchronous_mode_strict"`
	Slots  map[string]map[string]any `json:"slots"`
}

func (p patroni) config(ctx context.Context, m Member) (dynamic, error) {
	var out dynamic
	_, err := p.ask(ctx, http.MethodGet, m.restURL()+"/config", nil, &out)
	return out, err
}

func (p patroni) change(ctx context.Context, m Member, patch map[string]any) error {
	_, err := p.ask(ctx, http.MethodPatch, m.restURL()+"/config", patch, nil)
	return err
}

// order has a member's Patroni do what takes its time, and returns when that is done, or has failed. Patroni goes on with it when ctx ends before.
func (p patroni) order(ctx context.Context, m Member, path string, in any) error {
	unhurried := *p.http
	unhurried.Timeout = 0
	_, err := patroni{&unhurried}.ask(ctx, http.MethodPost, m.restURL()+path, in, nil)
	return err
}
