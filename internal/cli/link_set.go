package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

const linkSetLong = `Change settings of a link, on both sides, while it runs.

--mode sync has a commit on the primary return when the twin has it durably, so that a
forced failover loses nothing that was acknowledged. It is in force once the twin is in
step, which the command waits for. The agent asks the primary's server for it, in
synchronous_standby_names, beside standbys that it waits for already. Other databases
of the instance do not wait: they get synchronous_commit = local unless they have a
setting of their own, new sessions at once, sessions that are open when they end. With
--mode async all of that is taken back.

--sync-timeout says for how long commits wait for a twin that does not answer: a
duration, after which they go on without it until it is in step again and the link has
the problem sync_degraded meanwhile; or "wait", for ever. Who waits for ever never
loses an acknowledged commit, and stands still while the twin, or the agent on either
side, is away. A timeout needs the primary's agent: while that is down, commits wait.

--on-conflict says what becomes of sessions on the secondary that hold a lock in the
way of what the link applies, as a long query does when a table is altered on the
primary. With wait, the default, the link waits for them, applies nothing meanwhile and
shows the problem schema_change_waits. With cancel=AFTER it cancels what they execute
once it has waited that long, and ends sessions that are idle in a transaction. cancel
alone waits for 30s.

--audit-rate says how fast each side reads its tables to compare them in the background
("link audit"): 8MB a second by default, 0 not at all.

--on-isolation says what a primary does that has lost its twin. With serve, the default,
it goes on; so a twin that was made primary by force and the old primary both accept
writes until they hear of each other. With fence=AFTER a primary that has not heard of
its twin for so long refuses writes, until they meet again or "twinspan link failover
--type forced" lets it go on. fence alone means 30s. A forced failover that is given
later than that never meets a primary that still accepts writes; the price is that the
loss of the twin, its agent or the network stops the writers too.

--max-rate bounds the first copy, also one that is under way: bytes of rows a second, all
tables together, before compression. "none" takes the limit away.

--accept lets a difference be that stopped the link (schema_drifted; resume it then) or
that it warns of (schema_differs_since_copy, database_settings_differ), or lets a repair
drop what it has named (drop_objects). Given at the primary's agent, --accept event_trigger_of_role trusts the
roles whose functions event triggers run there now. Given at the secondary's agent, --accept
superuser_commands has schema changes of roles that are superusers on the primary and
not on the secondary made with the agent's rights; --withdraw takes that back, and
database_settings_differ.`

const onConflictUsage = "who is in the way on the secondary, the `policy`: wait, or cancel=AFTER"

const onIsolationUsage = "a primary that has lost its twin, the `policy`: serve, or fence=AFTER"

const maxRateUsage = "copy rows no faster than this `size` per second, such as 50MB; none is no limit"

const syncTimeoutUsage = "in mode sync, how long commits wait for the twin: wait, or a `duration` (default 10s)"

func (a *app) linkSet() *cobra.Command {
	var mode string
	var timeout syncTimeout
	var onConflict, onIsolation string
	var rate maxRate
	var audit auditRate
	var accept, withdraw []string
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change settings of a link",
		Long:  linkSetLong,
		Example: `  twinspan link set sales --mode sync
  twinspan link set sales --mode sync --sync-timeout wait
  twinspan link set sales --mode async
  twinspan link set sales --on-conflict cancel=10s
  twinspan link set sales --max-rate 20MB
  twinspan link set sales --audit-rate 2MB
  twinspan link set sales --accept schema_drifted`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLinks,
	}
	cmd.RunE = a.asks(func(ctx context.Context, c *client.Client, args []string) error {
		in := api.SetLink{Mode: api.Mode(mode), SyncTimeoutSeconds: timeout.seconds, OnConflict: onConflict, OnIsolation: onIsolation, AuditRate: audit.bytes, Accept: accept, Withdraw: withdraw}
		if cmd.Flags().Changed("max-rate") {
			in.MaxRate = &rate.bytes
		}
		l, err := c.SetLink(ctx, args[0], in)
		if err == nil && !a.flags.noWait && l.Mode == api.Sync && in.Mode != "" {
			l, err = a.waitSync(ctx, c, l)
		}
		if err != nil {
			return err
		}
		return a.answer(l, func(w io.Writer) { showSet(w, in, l) })
	})
	flags := cmd.Flags()
	flags.StringVar(&mode, "mode", "", "when a commit returns, the `mode`: async, at once; sync, when the twin has it")
	flags.Var(&timeout, "sync-timeout", syncTimeoutUsage)
	flags.StringVar(&onConflict, "on-conflict", "", onConflictUsage)
	flags.StringVar(&onIsolation, "on-isolation", "", onIsolationUsage)
	flags.Var(&rate, "max-rate", maxRateUsage)
	flags.Var(&audit, "audit-rate", auditRateUsage)
	flags.StringSliceVar(&accept, "accept", nil, "`codes` of problems that shall be, as told above")
	flags.StringSliceVar(&withdraw, "withdraw", nil, "`codes` whose acceptance is taken back: superuser_commands, database_settings_differ")
	cmd.MarkFlagsOneRequired("mode", "sync-timeout", "on-conflict", "on-isolation", "max-rate", "audit-rate", "accept", "withdraw")
	a.completeFlag(cmd, "on-conflict", cobra.FixedCompletions([]string{"wait", "cancel", "cancel=10s"}, cobra.ShellCompDirectiveNoFileComp))
	a.completeFlag(cmd, "on-isolation", cobra.FixedCompletions([]string{"serve", "fence", "fence=1m"}, cobra.ShellCompDirectiveNoFileComp))
	a.completeFlag(cmd, "accept", cobra.FixedCompletions([]string{"schema_drifted", "schema_differs_since_copy", "superuser_commands", "drop_objects", "event_trigger_of_role", "database_settings_differ"}, cobra.ShellCompDirectiveNoFileComp))
	a.completeFlag(cmd, "mode", cobra.FixedCompletions([]string{"async", "sync"}, cobra.ShellCompDirectiveNoFileComp))
	a.completeFlag(cmd, "sync-timeout", cobra.FixedCompletions([]string{"wait", "10s", "1m"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// showSet says what was set, and nothing else.
func showSet(w io.Writer, in api.SetLink, l api.Link) {
	if in.Mode != "" || in.SyncTimeoutSeconds != nil {
		fmt.Fprintf(w, "link %s is %s\n", l.Name, modeText(l))
	}
	if in.OnConflict != "" {
		fmt.Fprintf(w, "link %s: on-conflict is %s\n", l.Name, l.OnConflict)
	}
	if in.OnIsolation != "" {
		fmt.Fprintf(w, "link %s: on-isolation is %s\n", l.Name, l.OnIsolation)
	}
	if in.MaxRate != nil {
		rate := "none"
		if l.MaxRate > 0 {
			rate = terminal.Size(l.MaxRate) + " a second"
		}
		fmt.Fprintf(w, "link %s: max-rate is %s\n", l.Name, rate)
	}
	if in.AuditRate != nil {
		fmt.Fprintf(w, "link %s: audit-rate is %s\n", l.Name, rateText(*in.AuditRate))
	}
	for _, code := range in.Accept {
		fmt.Fprintf(w, "link %s: %s is accepted\n", l.Name, code)
	}
	for _, code := range in.Withdraw {
		fmt.Fprintf(w, "link %s: %s is accepted no more\n", l.Name, code)
	}
}

// waitSync waits until commits wait for the twin, or something is in the way.
func (a *app) waitSync(ctx context.Context, c *client.Client, l api.Link) (api.Link, error) {
	tick := time.NewTicker(a.deps.Poll)
	defer tick.Stop()
	for {
		if err := a.syncStopped(l); !errors.Is(err, errGoOn) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return l, problem.New(problem.Cancelled, "interrupted", "stopped waiting; link %s has its mode", l.Name).
				WithHint("twinspan link show %s says whether it is in force", l.Name)
		case <-tick.C:
		}
		next, err := c.Link(ctx, l.Name)
		if err != nil {
			if ctx.Err() != nil {
				continue
			}
			return l, err
		}
		l = next
	}
}

// syncStopped says whether there is something left to wait for.
func (a *app) syncStopped(l api.Link) error {
	switch {
	case l.Mode != api.Sync || l.Sync == nil || l.Sync.State == api.SyncEngaged:
		return nil
	case l.Phase == api.Broken || l.Phase == api.Fenced || l.Phase == api.Suspended:
		return stopped(l, nil)
	}
	for _, p := range l.Problems {
		if strings.HasPrefix(p.Code, "sync_") && p.Code != "sync_degraded" {
			return errorOf(problem.Conflict, p)
		}
	}
	return errGoOn
}

// modeText says in words when commits return.
func modeText(l api.Link) string {
	s := l.Sync
	if s == nil {
		return string(l.Mode)
	}
	limit := "for ever"
	if s.TimeoutSeconds > 0 {
		limit = "up to " + (time.Duration(s.TimeoutSeconds) * time.Second).String()
	}
	switch s.State {
	case api.SyncEngaged:
		return "sync: commits wait for the twin, " + limit
	case api.SyncDegraded:
		text := "sync, but commits go on without the twin, which did not answer"
		if s.Since != nil {
			text += ", since " + when(*s.Since)
		}
		return text
	case api.SyncPending:
		return "sync, in force once the twin is in step; then commits wait " + limit
	}
	return "sync; the primary has not said whether commits wait"
}

// syncTimeout is the value of a flag: "wait" or a duration.
type syncTimeout struct{ seconds *int64 }

func (s *syncTimeout) String() string {
	switch {
	case s.seconds == nil:
		return ""
	case *s.seconds == 0:
		return "wait"
	}
	return (time.Duration(*s.seconds) * time.Second).String()
}

func (s *syncTimeout) Type() string { return "duration" }

func (s *syncTimeout) Set(text string) error {
	var seconds int64
	if text != "wait" {
		d, err := time.ParseDuration(text)
		if n, bare := strconv.Atoi(text); bare == nil {
			d, err = time.Duration(n)*time.Second, nil
		}
		if err != nil || d <= 0 || d > 24*time.Hour {
			return errors.New(`say "wait" or a duration of up to 24h, like 10s`)
		}
		seconds = int64((d + time.Second - 1) / time.Second)
	}
	s.seconds = &seconds
	return nil
}

// maxRate is the flag --max-rate.
type maxRate struct{ bytes int64 }

func (m *maxRate) Set(s string) (err error) {
	if s == "none" {
		m.bytes = 0
		return nil
	}
	if m.bytes, err = parseSize(s); err == nil && m.bytes == 0 {
		err = errors.New(`say "none" or a size`)
	}
	return err
}

func (m *maxRate) String() string {
	if m.bytes == 0 {
		return ""
	}
	return terminal.Size(m.bytes)
}

func (*maxRate) Type() string { return "size" }
