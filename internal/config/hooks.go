package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// mostHooks bounds how many hooks an agent has, mostHookTime how long a run of one may take.
	mostHooks    = 20
	mostHookTime = time.Hour
)

// Hook is a program that the agent runs when something happens.
type Hook struct {
	On      []string      // kinds of events, as role or problem.began; none for all
	Command []string      // the program's full path, and its arguments
	Timeout time.Duration // how long a run may take; 0 for the default
}

// hookText is a hook as the file has it.
type hookText struct {
	On      []string `toml:"on"`
	Command []string `toml:"command"`
	Timeout *string  `toml:"timeout"`
}

// readHooks takes the hooks of a file.
func readHooks(text []byte, list []hookText) ([]Hook, error) {
	if len(list) > mostHooks {
		return nil, atNth(text, "hooks.command", mostHooks, fmt.Sprintf("there are more than %d hooks", mostHooks))
	}
	var out []Hook
	for i, h := range list {
		made := Hook{On: h.On, Command: h.Command}
		if h.Timeout != nil {
			var err error
			if made.Timeout, err = time.ParseDuration(*h.Timeout); err != nil || made.Timeout <= 0 || made.Timeout > mostHookTime {
				return nil, atNth(text, "hooks.timeout", i, `hooks.timeout is a duration of an hour at most, as "30s"`)
			}
		}
		if key, wrong := made.check(); wrong != "" {
			return nil, atNth(text, "hooks."+key, i, wrong)
		}
		out = append(out, made)
	}
	return out, nil
}

// check says which key of a hook is wrong, and why.
func (h Hook) check() (key, wrong string) {
	if len(h.Command) == 0 || !filepath.IsAbs(h.Command[0]) {
		return "command", "hooks.command is a list: the full path of a program, and its arguments"
	}
	if slices.ContainsFunc(h.Command, func(s string) bool { return strings.Contains(s, "\x00") }) {
		return "command", "hooks.command holds a zero byte"
	}
	for _, kind := range h.On {
		if !api.IsEventKind(kind) {
			return "on", fmt.Sprintf("hooks.on: there are no events %q; twinspan events --help lists the kinds", kind)
		}
	}
	return "", ""
}

// ParseHook reads a hook as init --hook takes it: KIND,KIND=PROGRAM, or PROGRAM for all events.
func ParseHook(s string) (Hook, error) {
	h := Hook{Command: []string{s}}
	if on, program, found := strings.Cut(s, "="); found && !filepath.IsAbs(s) {
		h = Hook{On: strings.Split(on, ","), Command: []string{program}}
	}
	if _, wrong := h.check(); wrong != "" {
		return h, problem.New(problem.Invalid, "parameters_invalid", "the hook %q: %s", s, strings.TrimPrefix(wrong, "hooks.")).
			WithHint("write --hook KIND,KIND=/full/path/of/a/program, or --hook /full/path for all events; arguments go into twinspan.toml")
	}
	return h, nil
}

// renderHooks writes the hooks, or an example of one.
func renderHooks(b *strings.Builder, list []Hook) {
	b.WriteString(`
# Programs that are run when something happens, each once for every event of the kinds in "on"
# (all without), as the agent's user, without a shell; docs/operating.md describes them.
`)
	if len(list) == 0 {
		b.WriteString("# [[hooks]]\n# on = [\"role\", \"problem\"]\n# command = [\"/usr/local/bin/page\", \"dba\"]\n# timeout = \"30s\"\n")
	}
	for _, h := range list {
		b.WriteString("[[hooks]]\n")
		if len(h.On) > 0 {
			fmt.Fprintf(b, "on = %s\n", quoteList(h.On))
		}
		fmt.Fprintf(b, "command = %s\n", quoteList(h.Command))
		if h.Timeout != 0 {
			fmt.Fprintf(b, "timeout = %s\n", quote(h.Timeout.String()))
		}
	}
}

func quoteList(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
