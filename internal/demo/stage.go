package demo

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/terminal"
)

// stage is where the demonstration is seen: on a terminal the last block is
// redrawn in place; elsewhere lines are printed, and fewer of them.
type stage struct {
	out    io.Writer
	screen *terminal.Screen // nil for plain lines
	began  time.Time
	shown  time.Time // of the last plain line of what is live
	step   string    // that it told of
}

// every is how often something live gets a plain line.
const every = 5 * time.Second

func newStage(in Request) *stage {
	s := &stage{out: in.Out, began: time.Now()}
	if !in.Plain {
		s.screen = terminal.Of(in.Out)
	}
	return s
}

// say prints a line that stays, with the time since the beginning.
func (s *stage) say(format string, args ...any) {
	s.settle()
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// settle leaves what was redrawn last as it is; what comes next stands below.
func (s *stage) settle() {
	if s.screen != nil {
		s.screen = terminal.Of(s.out)
	}
	s.shown, s.step = time.Time{}, ""
}

// show redraws a block, or prints its line when the step is another than before
// or enough time has passed.
func (s *stage) show(step string, block []string, line string) {
	if s.screen != nil {
		s.screen.Draw(block)
		return
	}
	if step == s.step && time.Since(s.shown) < every {
		return
	}
	s.step, s.shown = step, time.Now()
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), line)
}

func (s *stage) filling(what string, done, total int) {
	s.show(what, []string{fmt.Sprintf("         %s %s", terminal.Bar(int64(done), int64(total), 40), what)}, "  "+what)
}

func (s *stage) seeding(l api.Link, rate float64) {
	p := l.Seeding
	percent := int64(0)
	if p.BytesTotal > 0 {
		percent = min(100, p.BytesDone*100/p.BytesTotal)
	}
	step := string(l.Phase)
	if p.Step != "" && l.Phase == api.Seeding {
		step += ", " + p.Step
	}
	text := fmt.Sprintf("%d/%d tables, %s of %s, %s/s", p.TablesDone, p.TablesTotal, terminal.Size(p.BytesDone), terminal.Size(p.BytesTotal), terminal.Size(p.BytesPerSecond))
	if p.EtaSeconds > 0 {
		text += ", " + terminal.Duration(p.EtaSeconds) + " left"
	}
	s.show(step+fmt.Sprint(percent/25), []string{
		"         " + step,
		fmt.Sprintf("         %s %3d%%", terminal.Bar(p.BytesDone, p.BytesTotal, 40), percent),
		"         " + text,
		fmt.Sprintf("         meanwhile the workload commits %s transactions/s", terminal.Rate(rate)),
	}, fmt.Sprintf("  %s: %d%%, %s; workload %s transactions/s", step, percent, text, terminal.Rate(rate)))
}

func (s *stage) live(l api.Link, rate float64, errors int64) {
	lag := fmt.Sprintf("%s, %s", terminal.Known(l.Lag.Seconds, terminal.Duration), terminal.Known(l.Lag.Bytes, terminal.Size))
	load := terminal.Rate(rate) + " transactions/s"
	if errors > 0 {
		load += ", " + terminal.Plural(int(errors), "failure")
	}
	primary, secondary := "a", "b"
	if l.Role == api.Primary { // as b shows it
		primary, secondary = secondary, primary
	}
	applied := terminal.Known(l.Rates, func(r api.Rates) string {
		return fmt.Sprintf("%s transactions/s, %s changes/s, %s/s", terminal.Rate(r.TransactionsPerSecond), terminal.Rate(r.ChangesPerSecond), terminal.Size(int64(r.BytesPerSecond)))
	})
	block := []string{
		"",
		fmt.Sprintf("  %s on %s  --  %s  --  %s on %s      %s", database, primary, l.Phase, database, secondary, l.Health),
		"",
		"  workload on " + primary + "   " + load,
		"  applied on " + secondary + "    " + applied,
		"  lag of " + secondary + "        " + lag,
		fmt.Sprintf("  positions       written %s  received %s  applied %s  confirmed %s", l.Position.Written, l.Position.Received, l.Position.Applied, l.Position.Confirmed),
	}
	for _, p := range l.Problems {
		block = append(block, fmt.Sprintf("  [%s] %s", p.Code, p.Title))
	}
	s.show(string(l.Phase)+string(l.Health), append(block, "", "  Ctrl-C stops the workload, compares the two sides and ends."),
		fmt.Sprintf("  %s: lag %s; applied %s; workload %s", l.Phase, lag, applied, load))
}

// guide prints how to look at both sides from another terminal.
func (s *stage) guide(a, b *side) {
	s.settle()
	fmt.Fprintf(s.out, `
  Look at it from another terminal, as the same user:

    the primary      %s
    the twin         %s
    a write there    INSERT INTO greetings VALUES (3, 'try it');    (on the twin: refused)
    the link         %s link show %s --dir %s
                     %s link watch --dir %s
    in a browser     %s ui --dir %s
    change places    %s link failover %s --dir %s    (again to come home)
    the logs         %s
                     %s

`, psql(a), psql(b), program(), linkName, terminal.Quoted(b.dir.Path()), program(), terminal.Quoted(a.dir.Path()), program(), terminal.Quoted(a.dir.Path()), program(), linkName, terminal.Quoted(a.dir.Path()), a.log, b.log)
}

// psql returns the command that opens a session. Over TCP it reads the password
// from its file.
func psql(s *side) string {
	if s.socket == "" {
		return fmt.Sprintf("PGPASSWORD=\"$(cat %s)\" psql -h 127.0.0.1 -p %d -U %s %s",
			terminal.Quoted(s.dir.Instance()+"/superuser-password"), s.port, instance.Superuser, database)
	}
	return fmt.Sprintf("psql -h %s -p %d -U %s %s", terminal.Quoted(s.socket), s.port, instance.Superuser, database)
}

// program is how this program can be called from another terminal.
func program() string {
	path, err := os.Executable()
	if found, lookErr := exec.LookPath("twinspan"); err != nil || lookErr == nil && found == path {
		return "twinspan"
	}
	return terminal.Quoted(path)
}
