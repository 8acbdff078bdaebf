package member

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// askTimeout bounds one request to one etcd or Patroni.
const askTimeout = 2 * time.Second

// mostAnswer bounds what is read of an answer.
const mostAnswer = 16 << 20

// etcd asks the etcds of an instance, over their JSON gateway (etcd's documentation, "gRPC gateway"), which needs no client of its own.
type etcd struct {
	http *http.Client
	urls func() []string // those to try, in this order
}

func newHTTP(config *tls.Config) *http.Client {
	return &http.Client{Timeout: askTimeout, Transport: &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second, DisableCompression: true}}
}

// voter is a member of etcd.
type voter struct {
	ID      string   `json:"ID"`   // as a decimal number
	Name    string   `json:"name"` // "" of one that has not begun
	Peers   []string `json:"peerURLs"`
	Clients []string `json:"clientURLs"`
	Learner bool     `json:"isLearner"`
}

// refusal is an answer of etcd that is an error.
type refusal struct {
	status int
	text   string
}

func (r refusal) Error() string { return r.text }

// ask tries the etcds in turn until one answers. A refusal that is not of that etcd alone ends it.
func (e *etcd) ask(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	var last error
	for _, url := range e.urls() {
		last = e.askOne(ctx, url+path, body, out)
		var r refusal
		if last == nil || ctx.Err() != nil || errors.As(last, &r) && r.status < 500 && !strings.Contains(r.text, "learner") {
			return last
		}
	}
	if last == nil {
		last = errors.New("no etcd is known")
	}
	return problem.Wrap(last, problem.Transient, "member_etcd_away", "no etcd of the instance answers").
		WithHint("see that more than half of the members run, and that they reach each other")
}

func (e *etcd) askOne(ctx context.Context, url string, body []byte, out any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := e.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, mostAnswer))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		var why struct {
			Error   string `json:"error"`
			Message string `json:"message"`
		}
		if json.Unmarshal(text, &why) != nil || why.Error+why.Message == "" {
			why.Message = response.Status
		}
		return refusal{response.StatusCode, firstOf(why.Message, why.Error)}
	}
	return json.Unmarshal(text, out)
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// members lists the etcds, as more than half of them agree.
func (e *etcd) members(ctx context.Context) ([]voter, error) {
	var out struct {
		Members []voter `json:"members"`
	}
	err := e.ask(ctx, "/v3/cluster/member/list", map[string]any{"linearizable": true}, &out)
	return out.Members, err
}

// addLearner lets an etcd come that does not vote until it is promoted: so the others never wait for one that has not begun.
func (e *etcd) addLearner(ctx context.Context, peerURL string) error {
	var out struct{}
	return e.ask(ctx, "/v3/cluster/member/add", map[string]any{"peerURLs": []string{peerURL}, "isLearner": true}, &out)
}

func (e *etcd) promote(ctx context.Context, id string) error {
	var out struct{}
	return e.ask(ctx, "/v3/cluster/member/promote", map[string]any{"ID": id}, &out)
}

func (e *etcd) remove(ctx context.Context, id string) error {
	var out struct{}
	return e.ask(ctx, "/v3/cluster/member/remove", map[string]any{"ID": id}, &out)
}

// alive says whether the etcd of one address takes part: it answers, and knows a leader.
func (e *etcd) alive(ctx context.Context, url string) bool {
	var out struct {
		Leader string `json:"leader"`
	}
	return e.askOne(ctx, url+"/v3/maintenance/status", []byte("{}"), &out) == nil && out.Leader != "" && out.Leader != "0"
}

// pair is a key with its value.
type pair struct {
	key   string
	value []byte
}

// under lists the keys that begin with a prefix.
func (e *etcd) under(ctx context.Context, prefix string) ([]pair, error) {
	var out struct {
		KVs []struct {
			Key   []byte `json:"key"`
			Value []byte `json:"value"`
		} `json:"kvs"`
	}
	end := []byte(prefix)
	end[len(end)-1]++
	err := e.ask(ctx, "/v3/kv/range", map[string]any{"key": []byte(prefix), "range_end": end}, &out)
	var list []pair
	for _, kv := range out.KVs {
		list = append(list, pair{string(kv.Key), kv.Value})
	}
	return list, err
}

// change is what is to become of a key; a nil value removes it.
type change struct {
	key   string
	value []byte
}

// write makes changes at once where a key has a value, and says whether it had. With an empty key it makes them in any case.
func (e *etcd) write(ctx context.Context, key, value string, changes []change) (bool, error) {
	b64 := base64.StdEncoding.EncodeToString
	var operations []any
	for _, c := range changes {
		if c.value == nil {
			operations = append(operations, map[string]any{"requestDeleteRange": map[string]any{"key": b64([]byte(c.key))}})
		} else {
			operations = append(operations, map[string]any{"requestPut": map[string]any{"key": b64([]byte(c.key)), "value": b64(c.value)}})
		}
	}
	request := map[string]any{"success": operations}
	if key != "" {
		request["compare"] = []any{map[string]any{"key": b64([]byte(key)), "target": "VALUE", "result": "EQUAL", "value": b64([]byte(value))}}
	}
	var out struct {
		Succeeded bool `json:"succeeded"`
	}
	err := e.ask(ctx, "/v3/kv/txn", request, &out)
	return out.Succeeded, err
}

// memberID writes an etcd's id as its programs show it.
func memberID(decimal string) string {
	n, err := strconv.ParseUint(decimal, 10, 64)
	if err != nil {
		return decimal
	}
	return fmt.Sprintf("%x", n)
}
