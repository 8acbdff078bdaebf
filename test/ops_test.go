//go:build ops

package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// The dashboard's queries are run against a real Prometheus that scrapes two real agents:
// none is empty. promtool finds nothing to say of what they show.
func TestTheDashboardShowsALink(t *testing.T) {
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	pgtest.Exec(t, p.A.Server.DSN("sales"), `CREATE TABLE t (i int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	if f := failOver(t, p.A, "sales", api.FailoverRequest{}); f.State != api.FailoverDone {
		t.Fatalf("failover: %+v", f)
	}
	p.WaitPhase(t, "sales", api.Replicating)
	if _, err := p.A.Client.Verify(t.Context(), "sales", api.Verify{}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { // something to be applied
		for i := 2000; ctx.Err() == nil; i++ {
			pgtest.Exec(t, p.B.Server.DSN("sales"), fmt.Sprintf(`INSERT INTO t VALUES (%d)`, i))
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	var targets []string
	for _, s := range []*linktest.Side{p.A, p.B} {
		targets = append(targets, overTCP(t, s))
		check := exec.Command("promtool", "check", "metrics")
		check.Stdin = strings.NewReader(ours(metricsOf(t, s)))
		if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("promtool check metrics, agent %s: %v\n%s", s.Name, err, out)
		}
	}
	query := prometheus(t, targets)
	text, err := os.ReadFile("../ops/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Templating struct {
			List []struct {
				Name  string
				Type  string
				Query json.RawMessage
			}
		}
		Panels []struct {
			Title   string
			Type    string
			Empty   string `json:"x-empty"`
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	known := strings.NewReplacer("$__rate_interval", "10s", "$link", ".*", "$job", "twinspan")
	asked := 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			expr := known.Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s: a variable that nobody has set: %s", panel.Title, expr)
			}
			asked++
			if panel.Empty != "" {
				if _, err := query(expr); err != nil {
					t.Errorf("%s: %v", panel.Title, err)
				}
				continue
			}
			pgtest.Await(t, time.Minute, panel.Title+": "+expr, func() error {
				n, err := query(expr)
				if err == nil && n == 0 {
					err = fmt.Errorf("the query has no result")
				}
				return err
			})
		}
	}
	if asked < 20 {
		t.Errorf("%d queries", asked)
	}
	for _, v := range board.Templating.List {
		if v.Type != "query" {
			continue
		}
		var q struct{ Query string }
		if err := json.Unmarshal(v.Query, &q); err != nil {
			t.Fatal(err)
		}
		series, label, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(q.Query, "label_values("), ")"), ", ")
		if n, err := query("count by (" + label + ") (" + series + ")"); err != nil || n != 1 {
			t.Errorf("variable %s has %d values, %v", v.Name, n, err)
		}
	}
}

// ours leaves out what the Go runtime's collector names in its own way.
func ours(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, "twinspan_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// overTCP lets Prometheus reach an agent that listens on its socket alone.
func overTCP(t *testing.T, s *linktest.Side) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var dialer net.Dialer
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "agent"})
	proxy.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", s.Dir.Socket())
	}}
	server := &http.Server{Handler: proxy}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

// prometheus runs one that scrapes the targets, and returns what asks it how many results a
// query has.
func prometheus(t *testing.T, targets []string) func(expr string) (int, error) {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs("../ops/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%s]\nscrape_configs:\n- job_name: twinspan\n  static_configs: [{targets: ['%s']}]\n", rules, strings.Join(targets, "', '"))
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", pgtest.FreePort())
	command := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	var log strings.Builder
	command.Stdout, command.Stderr = &log, &log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also where the test is ended
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	ask := func(path string, values url.Values, into any) error {
		answer, err := http.Get("http://" + address + path + "?" + values.Encode())
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%d: %s", answer.StatusCode, text)
		}
		return json.Unmarshal(text, into)
	}
	query := func(expr string) (int, error) {
		var out struct {
			Data struct{ Result []json.RawMessage }
		}
		err := ask("/api/v1/query", url.Values{"query": {expr}}, &out)
		return len(out.Data.Result), err
	}
	pgtest.Await(t, linktest.Patience, "Prometheus to have scraped both agents", func() error {
		n, err := query(`up{job="twinspan"} == 1`)
		if err == nil && n != len(targets) {
			err = fmt.Errorf("%d agents are up", n)
		}
		return err
	})
	return query
}
