package cli

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/httpapi"
	"github.com/twinspan/twinspan/internal/httpapi/agenttest"
)

// The address that ui prints lets one browser in, once, and the pages end with the command.
func TestAddressOfThePagesWorksOnce(t *testing.T) {
	base, err := os.MkdirTemp("", "tw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir := config.Dir(base)
	if err := dir.Create(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir.File(), []byte("name = \"a\"\n[postgres]\ndsn = \"host=/nowhere\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ready, served := make(chan struct{}), make(chan error, 1)
	server := &httpapi.Server{Agent: &agenttest.Agent{Self: api.Agent{Name: "agent-of-the-test"}}, Dir: dir, Version: "1.2.3", Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Listening: func() { close(ready) }}
	go func() { served <- server.Run(ctx) }()
	<-ready

	running, interrupt := context.WithCancel(ctx)
	out, in := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- Run(running, deps(), []string{"ui", "--dir", base}, strings.NewReader(""), in, io.Discard)
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address, code, has := strings.Cut(strings.TrimSpace(line), "#")
	if !has || !strings.HasPrefix(address, "http://127.0.0.1:") || len(code) < 20 {
		t.Fatalf("%q", line)
	}
	visit := func(secret string) (status int, text string) {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&http.Client{Jar: jar}).PostForm(address, url.Values{"secret": {secret}})
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	if status, _ := visit(code[1:]); status != http.StatusForbidden {
		t.Errorf("another code: %d", status)
	}
	if status, text := visit(code); status != http.StatusOK || !strings.Contains(text, "agent-of-the-test") {
		t.Errorf("the code: %d, %s", status, text)
	}
	if status, _ := visit(code); status != http.StatusForbidden {
		t.Errorf("the code again: %d", status)
	}
	r, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "elsewhere.example"
	if answer, err := http.DefaultClient.Do(r); err != nil || answer.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("under another name: %v, %v", answer, err)
	}
	interrupt()
	if status := <-ended; status != exitDone {
		t.Errorf("exit status %d", status)
	}
	if _, err := http.Get(address); err == nil {
		t.Error("the pages are there without the command")
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
