package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

func TestSecretIsNeverPrinted(t *testing.T) {
	s := NewSecret("hunter2")
	var b bytes.Buffer
	for _, format := range []Format{Text, JSON} {
		log, err := New(&b, Options{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		log.Info("connected", "dsn", s, "group", slog.GroupValue(slog.Any("dsn", s)), "in", struct{ S Secret }{s}, "at", &s)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&b, verb, s)
		fmt.Fprintf(&b, verb, struct{ S Secret }{s})
		fmt.Fprintf(&b, verb, []Secret{s})
	}
	text, err := json.Marshal(map[string]any{"a": s, "b": &s})
	if err != nil {
		t.Fatal(err)
	}
	b.Write(text)
	hex := fmt.Sprintf("%x", "hunter2")
	if out := b.String(); strings.Contains(out, "hunter2") || strings.Contains(out, hex) {
		t.Errorf("shown: %s", out)
	}
	if s.Reveal() != "hunter2" {
		t.Error("lost")
	}
}

func TestFailureHasCodeAndHint(t *testing.T) {
	var b bytes.Buffer
	log, err := New(&b, Options{Format: JSON})
	if err != nil {
		t.Fatal(err)
	}
	log.Error("link stopped", Failure(fmt.Errorf("apply: %w", problem.New(problem.Diverged, "row_missing", "no row").WithHint("look"))))
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line["code"] != "row_missing" || line["err"] != "apply: no row" || line["hint"] != "look" {
		t.Errorf("%v", line)
	}
}

func TestUnknownFormatAndLevelAreRefused(t *testing.T) {
	if _, err := New(nil, Options{Format: "xml"}); problem.CodeOf(err) != "log_format_invalid" {
		t.Errorf("%v", err)
	}
	if _, err := New(nil, Options{Level: "loud"}); problem.CodeOf(err) != "log_level_invalid" {
		t.Errorf("%v", err)
	}
}

func TestRepeatedErrorsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log, err := New(&b, Options{})
		if err != nil {
			t.Fatal(err)
		}
		r := Repeats{Log: log, Every: time.Minute}
		down := errors.New("server is away")
		for range 121 { // two minutes of one a second
			r.Warn(t.Context(), "a", "cannot connect", down)
			<-time.After(time.Second)
		}
		r.Warn(t.Context(), "b", "cannot connect", down)
		r.Forget("a")
		r.Warn(t.Context(), "a", "cannot connect", down)
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(lines) != 5 {
			t.Fatalf("%d lines:\n%s", len(lines), b.String())
		}
		for i, repeated := range []bool{false, true, true, false, false} {
			if got := strings.Contains(lines[i], "repeated=59"); got != repeated {
				t.Errorf("line %d: %s", i, lines[i])
			}
		}
	})
}
