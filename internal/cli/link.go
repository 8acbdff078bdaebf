package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

const linkLong = `A link ties one database, the primary, to its twin on a peer's instance, the
secondary. It copies the database (seeding) while it is in use, applies what was
written meanwhile (catching up), and from then on keeps the twin in step
(replicating). The secondary can be read, and refuses writes.

A link is created at the agent of the database that is the primary first. All other
commands work from either side.`

func (a *app) linkCommand() *cobra.Command {
	return group("link", "links", "Create links and look after them", linkLong,
		a.linkCreate(), a.linkList(), a.linkShow(), a.linkWatch(), a.linkSet(), a.linkSuspend(), a.linkResume(), a.linkVerify(), a.linkAudit(), a.linkFailover(), a.linkLost(), a.linkRejoin(), a.linkRoles(), a.linkUncarried(), a.linkLargeObjects(), a.linkDelete())
}

const linkCreateLong = `Create a link and wait, with progress, until it replicates and has applied what was
written until then. The wait ends with the problem when the link stops or comes no
further for two minutes. The link goes on without the command: interrupting it stops the
watching only, and --no-wait returns as soon as the link exists on both sides.

The database on the peer's instance must not exist, or be empty. What stands in the way
of a link is found before anything is changed ("twinspan check" shows the same); a
finding that only warns can be accepted by its code.

Roles that own or are granted something in the database and are missing on the
secondary are created there without the right to log in. With --create-roles all roles
that use the database are created as the primary has them, but for SUPERUSER and
REPLICATION; with --with-passwords they keep their passwords, which cross as the hashes
that servers keep. Roles that exist stay as they are.

The database stays in use all the time. Tables without a primary key get REPLICA
IDENTITY FULL, which is undone when the link is deleted.`

func (a *app) linkCreate() *cobra.Command {
	in := api.CreateLink{}
	var audit auditRate
	mode, timeout, rate := "", syncTimeout{}, maxRate{}
	cmd := &cobra.Command{
		Use:   "create NAME --database DB --peer PEER",
		Short: "Create a link and seed it",
		Long:  linkCreateLong,
		Example: `  twinspan link create sales --database sales --peer b
  twinspan link create sales --database sales --peer b --peer-database sales_twin --no-wait
  twinspan link create sales --database sales --peer b --from-peer`,
		Args: cobra.ExactArgs(1),
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			in.Name, in.Mode, in.SyncTimeoutSeconds, in.MaxRate, in.AuditRate = args[0], api.Mode(mode), timeout.seconds, rate.bytes, audit.bytes
			l, err := c.CreateLink(ctx, in)
			if err != nil {
				return err
			}
			if !a.flags.noWait {
				if l, err = a.waitApplied(ctx, c, l); err == nil {
					l, err = a.waitSync(ctx, c, l) // at once in mode async
				}
				if err != nil {
					return err
				}
			}
			return a.linkIs(l)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&in.Database, "database", "", "the `database` on this agent's instance")
	flags.StringVar(&in.Peer, "peer", "", "the other agent, by the `name` that this one knows it")
	flags.StringVar(&in.PeerDatabase, "peer-database", "", "the `database` on the peer's instance, when its name is another")
	flags.StringVar(&mode, "mode", "async", "when a commit returns, the `mode`: async, at once; sync, when the twin has it")
	flags.Var(&timeout, "sync-timeout", syncTimeoutUsage)
	flags.StringSliceVar(&in.Accept, "accept", nil, "`codes` of findings that shall not stop the creation")
	flags.StringVar(&in.OnIsolation, "on-isolation", "", onIsolationUsage)
	flags.StringVar(&in.OnConflict, "on-conflict", "", onConflictUsage)
	flags.Var(&rate, "max-rate", maxRateUsage)
	flags.Var(&audit, "audit-rate", auditRateUsage)
	flags.BoolVar(&in.FromPeer, "from-peer", false, "the peer's database is the primary at first, this one becomes the twin")
	flags.BoolVar(&in.CreateRoles, "create-roles", false, "create missing roles as the primary has them")
	flags.BoolVar(&in.WithPasswords, "with-passwords", false, "with --create-roles, with their passwords")
	cmd.MarkFlagRequired("database")
	cmd.MarkFlagRequired("peer")
	a.completeFlag(cmd, "peer", a.completePeers)
	a.completeFlag(cmd, "database", a.completeDatabases)
	a.completeFlag(cmd, "mode", cobra.FixedCompletions([]string{"async", "sync"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// linkIs answers with a link, in a few words for people.
func (a *app) linkIs(l api.Link) error {
	return a.answer(l, func(w io.Writer) { fmt.Fprintf(w, "link %s is %s\n", l.Name, phrase(l.Phase)) })
}

func (a *app) linkList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the links",
		Long: `List the links of the agent. LAG is how old the oldest transaction that the
secondary has not applied is at most, BYTES the part of the primary's log that it has
not. What cannot be known now, as the other side is away, is shown as unknown.`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			links, err := c.Links(ctx)
			if err != nil {
				return err
			}
			return a.answer(links, func(w io.Writer) {
				var rows [][]string
				for _, l := range links {
					rows = append(rows, linkRow(l))
				}
				terminal.Table(w, linkTitles(), rows)
			})
		}),
	}
}

func (a *app) linkShow() *cobra.Command {
	tables := false
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show all that is known of a link",
		Long: `Show a link as this side sees it: what each side is, how far the seeding has come,
how far the primary's log has come on its way and what waits where, and what is wrong,
with the remedy. --tables shows how far each table of a seeding is instead.`,
		Example: `  twinspan link show sales
  twinspan link show sales --tables
  twinspan link show sales -o json | jq .lag.seconds`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLinks,
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			if tables {
				s, err := c.SeedingTables(ctx, args[0])
				if err != nil {
					return err
				}
				return a.answer(s, func(w io.Writer) { showSeedingTables(w, s) })
			}
			l, err := c.Link(ctx, args[0])
			if err != nil {
				return err
			}
			return a.answer(l, func(w io.Writer) { showLink(w, l) })
		}),
	}
	cmd.Flags().BoolVar(&tables, "tables", false, "show how far each table of the seeding is")
	return cmd
}

func (a *app) linkSuspend() *cobra.Command {
	return &cobra.Command{
		Use:   "suspend NAME",
		Short: "Stop a link for a while",
		Long: `Stop a link until it is resumed. The secondary stays readable as it is; the primary
keeps the log that the secondary will need, so watch its disk.`,
		Example:           `  twinspan link suspend sales`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLinks,
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			l, err := c.Suspend(ctx, args[0])
			if err == nil && !a.flags.noWait {
				l, err = a.wait(ctx, c, l, api.Suspended)
			}
			if err != nil {
				return err
			}
			return a.linkIs(l)
		}),
	}
}

const linkResumeLong = `Let a suspended link go on, or one that a problem stopped, once that is solved. Waits
until it replicates and has applied all that the primary had written when the command
began, or ends with the problem when the link stops, or comes no further for two
minutes. --no-wait returns at once.

--repair is for a broken link whose stream cannot go on: the slot was lost, or the
primary is a standby that was promoted without all that the twin has, or the twin's
server lost what it had confirmed. The primary makes a new slot; the twin is compared
with the primary at that slot's position, rows that differ are copied, and the stream
goes on from there. That reads every table on both sides once and copies what differs,
not the database. What only the twin has is removed from it: rows at once; tables and
other objects when that was agreed to, with link set NAME --accept drop_objects. Tables
that the primary has got meanwhile are made and copied, changed ones copied anew.

--skip-change leaves out, once, the schema change at which the link stands, where it
cannot be made on the secondary at all. What then differs between the schemas is found
and named, as whatever else differs (schema_drifted).`

func (a *app) linkResume() *cobra.Command {
	var repair, skip bool
	cmd := &cobra.Command{
		Use:   "resume NAME",
		Short: "Let a link go on",
		Long:  linkResumeLong,
		Example: `  twinspan link resume sales
  twinspan link resume sales --repair
  twinspan link resume sales --skip-change`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLinks,
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			resume := c.Resume
			switch {
			case repair:
				resume = c.ResumeWithRepair
			case skip:
				resume = c.ResumeSkipping
			}
			l, err := resume(ctx, args[0])
			if err == nil && !a.flags.noWait {
				l, err = a.waitApplied(ctx, c, l)
			}
			if err != nil {
				return err
			}
			return a.linkIs(l)
		}),
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "begin the stream anew, behind a comparison that repairs the twin")
	cmd.Flags().BoolVar(&skip, "skip-change", false, "leave out the schema change at which the link stands")
	cmd.MarkFlagsMutuallyExclusive("repair", "skip-change")
	return cmd
}

const linkDeleteLong = `Remove a link from both sides: slot, publication, triggers, settings and all that the
agents noted. Both databases stay; the twin becomes an independent database that
accepts writes. A twin that was never copied whole is dropped when the link made it,
and otherwise named as incomplete, so that nobody takes it for the database.

When the peer is gone for good, --force removes what this side has and leaves the
other as it is. On a terminal the name is asked for once more, unless --yes is given.`

func (a *app) linkDelete() *cobra.Command {
	var force, sure bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Remove a link; the databases stay",
		Long:  linkDeleteLong,
		Example: `  twinspan link delete sales
  twinspan link delete sales --force --yes`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLinks,
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			if err := a.confirm(args[0], sure); err != nil {
				return err
			}
			stop := a.sayWaits(ctx, c, args[0])
			d, err := c.DeleteLink(ctx, args[0], force)
			stop()
			if err != nil {
				return err
			}
			return a.answer(d, func(w io.Writer) { showDeleted(w, d) })
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "do not ask the peer: remove what this side has")
	cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	return cmd
}

// waitsShown is after how long a removal is asked what it waits for, and again.
const waitsShown = 2 * time.Second

// sayWaits says what holds a link up, each thing once, until stop is called.
func (a *app) sayWaits(ctx context.Context, c *client.Client, name string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		said := map[string]bool{}
		tick := time.NewTicker(waitsShown)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			l, err := c.Link(ctx, name)
			if err != nil {
				continue
			}
			for _, p := range l.Problems {
				if !said[p.Title] {
					said[p.Title] = true
					a.say("link %s: %s", name, p.Title)
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// confirm has a person type the name; a script is taken at its word.
func (a *app) confirm(name string, sure bool) error {
	if terminal.Of(a.in) == nil || sure {
		return nil
	}
	fmt.Fprintf(a.errs, "This removes the link %s.\n", name)
	return a.typed(name)
}

// typed has a person at the terminal type a link's name for what was just said.
func (a *app) typed(name string) error {
	fmt.Fprint(a.errs, "Type the link's name to go on: ")
	answer, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != name {
		return problem.New(problem.Cancelled, "not_confirmed", "nothing was changed")
	}
	return nil
}

func showDeleted(w io.Writer, d api.DeleteResult) {
	fmt.Fprintf(w, "link %s is removed\n", d.Name)
	for _, s := range d.Sides {
		fmt.Fprintf(w, "  %s on %s: %s\n", s.Database, s.Agent, strings.TrimSuffix(s.State+"; "+s.Text, "; "))
		for _, left := range s.Left {
			fmt.Fprintf(w, "    still there: %s\n", left)
		}
	}
}
