package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/terminal"
	"github.com/twinspan/twinspan/internal/tier"
)

func (a *app) instanceCommand() *cobra.Command {
	return group("instance", "agent", "Look at the instance; change the size of a managed one, and update it",
		`The instance beside the agent. docs/instance.md is a guide to a managed one.`, a.instanceShow(), a.instanceSet(), a.instanceUpdate())
}

func (a *app) instanceShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show the instance",
		Long: `Show the instance beside the agent: its server, what its databases are in the links, and how data at
rest is encrypted as far as this machine shows it. Of a managed instance also its tier and size, what
holds the server to them, its storage, and its backups.`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			i, err := c.Instance(ctx)
			if err != nil {
				return err
			}
			return a.answer(i, func(w io.Writer) { instanceLines(w, i) })
		}),
	}
}

// instanceLines writes what is known of an instance.
func instanceLines(w io.Writer, i api.Instance) {
	managed, roles := "no", "unknown: the links have not been found yet"
	if i.Postgres.Managed {
		managed = "yes"
	}
	if r := i.Roles; r.Known {
		roles = fmt.Sprintf("primary of %s, secondary of %d", terminal.Plural(r.Primary, "link"), r.Secondary)
	}
	fmt.Fprintf(w, "agent        %s\nmanaged      %s\nversion      %s\n", i.Agent, managed, dash(i.Postgres.Version))
	if release, _, _ := strings.Cut(i.Postgres.Version, " "); i.Installed != "" && i.Installed != release {
		fmt.Fprintf(w, "installed    %s\n", i.Installed)
	}
	fmt.Fprintf(w, "server       %s\nroles        %s\n", i.Postgres.DSN, roles)
	if s := i.Size; s != nil {
		sizeLines(w, *s)
	}
	if e := i.Enforcement; e != nil {
		enforcementLines(w, *e)
	}
	if s := i.Storage; s != nil {
		full := "not in sight"
		if s.FullAt != nil {
			full = "at " + clock(s.FullAt) + ", as it grows now"
		} else if s.Rate == nil {
			full = "unknown yet"
		}
		fmt.Fprintf(w, "used         %s of %s, %s free\nfull         %s\n", terminal.Size(s.UsedBytes), terminal.Size(s.LimitBytes), terminal.Size(s.FreeBytes), full)
	} else if i.Postgres.Managed {
		fmt.Fprintln(w, "used         unknown: not measured yet")
	}
	encryption := "unknown"
	if e := i.Encryption; e != nil {
		encryption = e.Kind
		if e.Detail != "" {
			encryption += " (" + e.Detail + ")"
		}
	}
	fmt.Fprintf(w, "encryption   %s\n", encryption)
	if i.Backups != nil {
		backupLines(w, *i.Backups)
	}
	problemLines(w, i.Problems)
}

func sizeLines(w io.Writer, s api.InstanceSize) {
	size := "none: it shares its machine"
	if s.VCores > 0 {
		size = fmt.Sprintf("%s, %s of memory", terminal.Plural(s.VCores, "vCore"), terminal.Size(s.MemoryBytes))
	}
	storage := "as much as the file system has"
	if s.StorageBytes > 0 {
		storage = terminal.Size(s.StorageBytes)
	}
	fmt.Fprintf(w, "tier         %s\nsize         %s\nstorage      %s\nbenefit      %s\n", s.Tier, size, storage, s.Benefit)
}

func enforcementLines(w io.Writer, e api.Enforcement) {
	by := "nothing"
	switch {
	case e.Limits && e.Settings:
		by = "settings of the server, and a control group"
	case e.Settings:
		by = "settings of the server"
	}
	fmt.Fprintf(w, "enforced by  %s\n", by)
	if e.Why != "" {
		fmt.Fprintf(w, "             %s\n", e.Why)
	}
	if len(e.Pending) > 0 {
		fmt.Fprintf(w, "at a restart %s\n", strings.Join(e.Pending, ", "))
	}
	if len(e.Overridden) > 0 {
		fmt.Fprintf(w, "overridden   %s\n", strings.Join(e.Overridden, ", "))
	}
}

const instanceSetLong = `Change the tier, the size or the benefit of a managed instance. What is not named stays
as it is.

Settings of the server follow from vCores, memory and storage. Those that take effect in a
running server do so at once. Others, shared_buffers and max_connections among them, wait for a
restart, and the command names them. It restarts the server only with --restart: then its sessions
end, and its links go on when it is back, in seconds. When the server does not start with
the new settings, the size of before is brought back, and the command fails.

--benefit passive-dr declares that nobody works on the instance: it is there for a disaster. Then its
vCores need no licence, for every whole hour in which that was so ("twinspan usage").`

func (a *app) instanceSet() *cobra.Command {
	var size tier.Size
	var restart bool
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Change the tier, the size or the benefit of a managed instance",
		Long:  instanceSetLong,
		Example: `  twinspan instance set --vcores 4 --memory 16GB --restart
  twinspan instance set --storage 200GB
  twinspan instance set --benefit passive-dr`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	cmd.RunE = a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
		in := api.SetInstance{Restart: restart}
		for name, set := range map[string]func(){
			"tier": func() { in.Tier = &size.Tier }, "vcores": func() { in.VCores = &size.VCores }, "memory": func() { in.MemoryBytes = &size.Memory },
			"storage": func() { in.StorageBytes = &size.Storage }, "benefit": func() { in.Benefit = &size.Benefit },
		} {
			if flags.Changed(name) {
				set()
			}
		}
		done, err := c.SetInstance(ctx, in)
		if err != nil {
			return err
		}
		if len(done.Pending) > 0 {
			a.say("The server has to be restarted for %s: twinspan instance set --restart", strings.Join(done.Pending, ", "))
		}
		return a.answer(done, func(w io.Writer) {
			sizeLines(w, done.Size)
			if done.Restarted {
				fmt.Fprintln(w, "restarted    yes")
			}
			if done.Limits != "" {
				fmt.Fprintf(w, "limits       %s\n", done.Limits)
			}
		})
	})
	flags.StringVar(&size.Tier, "tier", "", "service `tier` of the managed instance: general-purpose")
	sizeFlags(flags, &size)
	flags.BoolVar(&restart, "restart", false, "restart the server, where settings wait for that")
	cmd.MarkFlagsOneRequired("tier", "vcores", "memory", "storage", "benefit", "restart")
	a.completeSize(cmd)
	return cmd
}

const instanceUpdateLong = `Have a managed instance run the minor release of PostgreSQL that is installed beside it. First
install it, as with "apt-get upgrade": a package does not restart the server, and "instance show"
says when a newer one is there. Nothing is done where none is.

One server is restarted: its sessions end, and its links go on when it is back, in seconds. Of an
instance with members the standbys are restarted one after the other, each when all others follow;
then one of them takes the lead, and the former leader is restarted as its standby. Sessions with the
leader end once, and no acknowledged commit is lost. Install the release on all hosts first.

It waits until all is done. Interrupted, it leaves the servers that are left as they are, and goes on
with them when it is called again. Another major version takes the databases by links:
docs/major-upgrade.md.`

func (a *app) instanceUpdate() *cobra.Command {
	return &cobra.Command{
		Use:   "update",
		Short: "Restart a managed instance with the minor release that is installed",
		Long:  instanceUpdateLong,
		Args:  cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			done, err := c.UpdateInstance(ctx)
			if err != nil {
				return err
			}
			return a.answer(done, func(w io.Writer) { updateLines(w, done) })
		}),
	}
}

// updateLines writes what an update has done.
func updateLines(w io.Writer, u api.InstanceUpdate) {
	if len(u.Servers) == 0 {
		fmt.Fprintf(w, "release      %s\nrestarted    no: nothing newer is installed\n", dash(u.Release))
		return
	}
	if one := u.Servers[0]; one.Member == "" {
		fmt.Fprintf(w, "release      %s, before %s\nrestarted    yes, no sessions for %s\n", one.To, one.From, terminal.Duration(one.Seconds))
		return
	}
	var rows [][]string
	for _, s := range u.Servers {
		led := "standby"
		if s.Led {
			led = "leader"
		}
		rows = append(rows, []string{s.Member, led, s.From, s.To, terminal.Duration(s.Seconds)})
	}
	terminal.Table(w, []string{"member", "was", "from", "to", "took"}, rows)
}

// sizeFlags are the flags of a managed instance's size.
func sizeFlags(flags *pflag.FlagSet, size *tier.Size) {
	flags.IntVar(&size.VCores, "vcores", 0, "`number` of processors that the managed instance has")
	flags.Var((*bytesFlag)(&size.Memory), "memory", "`size` of its memory, such as 8GB")
	flags.Var((*bytesFlag)(&size.Storage), "storage", "`size` of its storage, such as 100GB")
	flags.StringVar(&size.Benefit, "benefit", "", "`benefit` of the managed instance: none, or passive-dr where nobody works on it")
}

func (a *app) completeSize(cmd *cobra.Command) {
	a.completeFlag(cmd, "tier", cobra.FixedCompletions([]string{tier.GeneralPurpose, tier.BusinessCritical}, cobra.ShellCompDirectiveNoFileComp))
	a.completeFlag(cmd, "benefit", cobra.FixedCompletions([]string{tier.NoBenefit, tier.PassiveDR}, cobra.ShellCompDirectiveNoFileComp))
}

// bytesFlag is a number of bytes with a unit.
type bytesFlag int64

// Set implements pflag.Value.
func (b *bytesFlag) Set(text string) error {
	n, err := parseSize(text)
	*b = bytesFlag(n)
	return err
}

// String implements pflag.Value.
func (b *bytesFlag) String() string {
	if *b == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*b), 10)
}

// Type implements pflag.Value.
func (b *bytesFlag) Type() string { return "size" }
