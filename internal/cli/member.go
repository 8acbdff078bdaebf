package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/terminal"
)

const memberLong = `The members of an instance of the tier business-critical: each host runs a server, and an etcd
that votes. One server leads and takes writes, the others follow and can be read; where it is
gone another one leads within half a minute. docs/members.md is a guide.

One agent works the links, the one beside the leader; the other agents stand by. Ask it for
everything but the list, which every member answers.`

func (a *app) memberCommand() *cobra.Command {
	return group("member", "agent", "Hosts that are one instance", memberLong, a.memberList(), a.memberInvite(), a.memberJoin(), a.memberRemove(), a.memberDurability())
}

func (a *app) memberList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the members, and say who works the links",
		Long: `List the members as the member that is asked sees them, with what is wrong. Where the
instance has no members it says which process works the links of the agent: another one
with the same identity may.`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			m, err := c.Members(ctx)
			if err != nil {
				return err
			}
			return a.answer(m, func(w io.Writer) { a.members(w, m) })
		}),
	}
}

func (a *app) members(w io.Writer, m api.Members) {
	if m.Tier == "business-critical" {
		var rows [][]string
		for _, one := range m.Members {
			state, behind := dash(one.State), "-"
			if one.Lag != nil {
				behind = strconv.FormatInt(*one.Lag, 10) + " B"
			}
			if !one.Answers {
				state = "does not answer"
			}
			votes := "no"
			if one.Votes {
				votes = "yes"
			}
			rows = append(rows, []string{one.Name, one.Role, state, dash(one.Version), dash(one.Address), behind, votes, one.Place})
		}
		terminal.Table(w, []string{"member", "role", "state", "version", "address", "behind", "votes", "place"}, rows)
		wait := "no: they go on without a standby where there is none"
		if m.Strict {
			wait = "yes: commits always wait for a standby"
		}
		fmt.Fprintf(w, "leader       %s\ndurability   %s\nwait         %s\n", dash(m.Leader), dash(m.Durability), wait)
	}
	fmt.Fprintf(w, "serves       %s\n", dash(m.Serves))
	problemLines(w, m.Problems)
}

func (a *app) memberInvite() *cobra.Command {
	ttl := time.Duration(0)
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Print a token with which another host becomes a member",
		Long: `Print a token for "twinspan member join" on one other host. Who has it gets all that the
instance has: its identity, its passwords and its rows. It is good for one host, and for an hour.`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			made, err := c.InviteMember(ctx, api.InviteMember{TTLSeconds: int64(ttl / time.Second)})
			if err != nil {
				return err
			}
			return a.answer(made, func(w io.Writer) { fmt.Fprintln(w, made.Token) })
		}),
	}
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "`how long` the token is good")
	return cmd
}

func (a *app) memberJoin() *cobra.Command {
	in := MemberRequest{}
	cmd := &cobra.Command{
		Use:   "join TOKEN --dir DIR",
		Short: "Make this host a member of an instance",
		Long: `Make a member's agent in a directory, with the token that "twinspan member invite" printed at
the instance. It gets the instance's identity over a connection that the token pins.
Nothing is started: "twinspan serve" does that, and then the member copies the leader's server.

PostgreSQL of the instance's version, Patroni 4.0 or newer and etcd 3.5 or newer are to be installed; a
witness, which has no server and only votes, needs etcd alone. --endpoint names this host as
the other members, and peers, reach it.`,
		Example: `  twinspan member join twinspan1:AAAA... --dir /var/lib/twinspan --endpoint db2.example.com:5022
  twinspan member join twinspan1:AAAA... --dir /var/lib/twinspan --endpoint vote.example.com:5022 --witness`,
		Args: cobra.ExactArgs(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			dir, err := a.dir()
			if err != nil {
				return err
			}
			in.Dir, in.Token, in.Version = dir, args[0], a.deps.Version
			made, err := a.deps.Join(cmd.Context(), in)
			if err != nil {
				return err
			}
			return a.answer(made, func(w io.Writer) {
				fmt.Fprintf(w, "agent        %s\ndirectory    %s\nendpoint     %s\n", made.Name, made.Dir, made.Endpoint)
				memberLine(w, made)
				a.say("Start it with: twinspan serve --dir %s", terminal.Quoted(made.Dir))
			})
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&in.Member, "member", "", "`name` of the member (default the next of member1, member2, ...)")
	flags.StringVar(&in.Endpoint, "endpoint", "", "`host:port` at which peers and members reach this host (default: port 5022 of this machine)")
	flags.IntVar(&in.Port, "port", 0, "`port` of the server (default 5432, or a free one)")
	flags.IntSliceVar(&in.Ports, "member-ports", nil, "`ports` of Patroni, etcd, and etcd for members (default 8008,2379,2380 or free ones)")
	flags.StringVar(&in.Listen, "listen", "", "`addresses` at which the server listens for other machines; * for all")
	flags.StringSliceVar(&in.Allow, "allow", nil, "with --listen, `networks` that clients come from, as 10.0.0.0/8")
	flags.StringVar(&in.BackupKeyFile, "backup-key-file", "", "`file` with the key of the backups, where that is the operator's")
	flags.StringVar(&in.BackupKeyCommand, "backup-key-command", "", "`command` for the shell that prints it")
	flags.BoolVar(&in.Witness, "witness", false, "the member only votes, and has no server")
	cmd.MarkFlagsMutuallyExclusive("witness", "backup-key-file", "backup-key-command")
	return cmd
}

// memberLine says which member an agent is.
func memberLine(w io.Writer, made api.Initialised) {
	if made.Member != "" {
		fmt.Fprintf(w, "member       %s\n", made.Member)
	}
}

func (a *app) memberRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a member out of the instance",
		Long: `Take a member out: it votes no more, and its server is no standby of the instance: its agent
stops it as soon as it learns of it. Its directory is of no use any more.

The member that leads is not removed, and none whose vote is needed.`,
		Args: cobra.ExactArgs(1),
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			m, err := c.RemoveMember(ctx, args[0])
			if err != nil {
				return err
			}
			return a.answer(m, func(io.Writer) { a.say("The member %s is removed.", args[0]) })
		}),
	}
}

func (a *app) memberDurability() *cobra.Command {
	return &cobra.Command{
		Use:   "durability (strict | available)",
		Short: "Say whether commits always wait for a standby",
		Long: `With strict, commits of an instance of three servers always wait until a standby has them on its
disk: where two servers are lost, writes stop rather than lose what was acknowledged. With
available they go on alone, with a problem shown, and the loss of that server loses them.`,
		Args: cobra.ExactArgs(1),
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			m, err := c.SetMembers(ctx, api.SetMembers{Durability: args[0]})
			if err != nil {
				return err
			}
			return a.answer(m, func(w io.Writer) { a.members(w, m) })
		}),
	}
}
