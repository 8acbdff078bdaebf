package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

const peerLong = `Two agents that trust each other are peers. Trust is in keys: each agent has made
its own, and an agent whose key is not known is refused before it can say a word.

With an invitation, when one agent reaches the other:

    twinspan peer invite         prints a token, on one side
    twinspan peer join TOKEN     uses it, on the other

By hand, with the certificates as files:

    twinspan peer export > a.pem                                       on a
    twinspan peer add a --endpoint a.example.com:5022 --cert a.pem     on b
    and the same the other way

A peer may check and measure the network. What else it may ask of this agent is
granted: which databases, which way their rows go, which operations. An agent that
joins lets the inviter make twins here; a link made here, or a twin made for a peer,
comes with what the link needs. "twinspan peer grant NAME" shows it.`

func (a *app) peerCommand() *cobra.Command {
	return group("peer", "links", "Trust other agents", peerLong,
		a.peerInvite(), a.peerInvitations(), a.peerUninvite(), a.peerJoin(), a.peerExport(), a.peerAdd(), a.peerList(), a.peerGrant(), a.peerRevoke(), a.peerTrust(), a.peerSet(), a.peerRemove(), a.peerRotate())
}

func (a *app) peerInvite() *cobra.Command {
	var ttl time.Duration
	var grants func() ([]api.Grant, bool, error)
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Print a token with which one other agent becomes a peer",
		Long: `Print a token that holds this agent's address, the fingerprint of its key and a
secret. The other side gives it to "twinspan peer join". It works once and ends by
itself. Treat it as a password until it is used.

Who joins by it may check and measure the network, and more with --grant.
` + grantWords,
		Example: `  twinspan peer invite
  twinspan peer invite --ttl 10m --grant sales:from-here`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			list, _, err := grants()
			if err != nil {
				return err
			}
			made, err := c.Invite(ctx, ttl, list...)
			if err != nil {
				return err
			}
			return a.answer(made, func(w io.Writer) {
				fmt.Fprintln(w, made.Token)
				a.say("It works once, until %s, for an agent that reaches %s. There: twinspan peer join TOKEN", when(made.Expires), made.Endpoint)
				a.sayGrants("Who joins", made.Grants)
			})
		}),
	}
	grants = grantFlag(cmd, "what the agent that joins may ask for here, as `grant` (none by default)")
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "`time` that the token holds, at most a week")
	return cmd
}

func (a *app) peerInvitations() *cobra.Command {
	return &cobra.Command{
		Use:   "invitations",
		Short: "List the tokens that nobody has used yet",
		Long: `List the invitations by which somebody can still become a peer: until when, and
what who joins may ask for. The tokens themselves are not kept. A wrong attempt says
that somebody has an identifier of a token and not its secret; after some of them the
invitation ends.`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			all, err := c.Invitations(ctx)
			if err != nil {
				return err
			}
			return a.answer(all, func(w io.Writer) {
				var rows [][]string
				for _, i := range all {
					rows = append(rows, []string{i.ID, when(i.Created), when(i.Expires), strconv.Itoa(i.Attempts), dash(strings.Join(grantsText(i.Grants), "; "))})
				}
				terminal.Table(w, []string{"ID", "MADE", "UNTIL", "WRONG ATTEMPTS", "WHO JOINS MAY"}, rows)
			})
		}),
	}
}

func (a *app) peerUninvite() *cobra.Command {
	return &cobra.Command{
		Use:   "uninvite ID",
		Short: "Take back a token that nobody has used",
		Long: `Take back an invitation: from now on its token lets nobody in. "twinspan peer
invitations" lists the identifiers. An agent that has joined is removed with
"twinspan peer remove".`,
		Args: cobra.ExactArgs(1),
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.Uninvite(ctx, args[0]); err != nil {
				return err
			}
			a.say("The invitation %s is taken back.", args[0])
			return nil
		}),
	}
}

func (a *app) peerJoin() *cobra.Command {
	var grants func() ([]api.Grant, bool, error)
	cmd := &cobra.Command{
		Use:   "join TOKEN",
		Short: "Become a peer of the agent that made a token",
		Long: `Dial the agent that printed the token, prove the invitation and exchange
certificates. Both agents then trust each other. TOKEN may be "-": it is then read
from standard input, where no list of processes shows it.

The inviting agent may then make twins of its databases on this side's instance,
unless --grant says otherwise ("--grant none": nothing but check and measure).
` + grantWords,
		Example: `  twinspan peer join "$TOKEN"
  twinspan peer join "$TOKEN" --grant sales:to-here
  ssh b twinspan peer invite --dir /var/lib/twinspan | twinspan peer join -`,
		Args: cobra.ExactArgs(1),
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			token := args[0]
			if token == "-" {
				text, err := a.read("-")
				if err != nil {
					return err
				}
				token = text
			}
			list, nothing, err := grants()
			if err != nil {
				return err
			}
			p, err := c.Join(ctx, api.JoinRequest{Token: strings.TrimSpace(token), Grants: list, GrantNothing: nothing})
			if err != nil {
				return err
			}
			return a.answer(p, func(w io.Writer) {
				fmt.Fprintf(w, "peer %s at %s, %s\n", p.Name, p.Endpoint, p.Fingerprint)
				a.sayGrants("Peer "+p.Name, p.Grants)
			})
		}),
	}
	grants = grantFlag(cmd, "what the inviting agent may ask for here, as `grant` (*:to-here:link,roles by default)")
	return cmd
}

func (a *app) peerExport() *cobra.Command {
	return &cobra.Command{
		Use:   "export",
		Short: "Print this agent's certificate",
		Long: `Print the certificate of this agent, PEM, for "twinspan peer add" on another. It
holds nothing secret, but the other side must get it unchanged: compare the
fingerprint by another way, such as a telephone.`,
		Example: `  twinspan peer export > a.pem`,
		Args:    cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			e, err := c.ExportPeer(ctx)
			if err != nil {
				return err
			}
			return a.answer(e, func(w io.Writer) {
				fmt.Fprint(w, e.Certificate)
				a.say("Fingerprint %s. On the other side: twinspan peer add %s --endpoint %s --cert FILE", e.Fingerprint, e.Name, e.Endpoint)
			})
		}),
	}
}

func (a *app) peerAdd() *cobra.Command {
	var endpoint, file string
	var grants func() ([]api.Grant, bool, error)
	cmd := &cobra.Command{
		Use:   "add NAME --endpoint HOST:PORT --cert FILE",
		Short: "Trust another agent by its certificate",
		Long: `Trust the agent whose certificate is in FILE ("-" for standard input), as
"twinspan peer export" printed it there. The other side must add this agent too.

Without --endpoint this agent waits to be dialled: of two peers only one needs to
reach the other. The peer may check and measure the network, and more with --grant.
` + grantWords,
		Example: `  twinspan peer add b --endpoint b.example.com:5022 --cert b.pem`,
		Args:    cobra.ExactArgs(1),
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			text, err := a.read(file)
			if err != nil {
				return err
			}
			list, _, err := grants()
			if err != nil {
				return err
			}
			p, err := c.AddPeer(ctx, api.AddPeer{Name: args[0], Endpoint: endpoint, Certificate: text, Grants: list})
			if err != nil {
				return err
			}
			return a.answer(p, func(w io.Writer) {
				fmt.Fprintf(w, "peer %s, %s\n", p.Name, p.Fingerprint)
				a.sayGrants("Peer "+p.Name, p.Grants)
			})
		}),
	}
	grants = grantFlag(cmd, "what the peer may ask for here, as `grant` (none by default)")
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "`host:port` at which to dial it")
	cmd.Flags().StringVar(&file, "cert", "", "`file` with its certificate, PEM")
	cmd.MarkFlagRequired("cert")
	return cmd
}

func (a *app) peerList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the peers",
		Long:  `List the agents that this one trusts, and whether they are connected.`,
		Args:  cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			peers, err := c.Peers(ctx)
			if err != nil {
				return err
			}
			return a.answer(peers, func(w io.Writer) {
				var rows [][]string
				for _, p := range peers {
					rows = append(rows, []string{p.Name, dash(p.Endpoint), yes(p.Connected), fmt.Sprint(p.Links), p.Fingerprint, when(p.Expires), dash(p.Error)})
				}
				terminal.Table(w, []string{"NAME", "ENDPOINT", "CONNECTED", "LINKS", "FINGERPRINT", "EXPIRES", "ERROR"}, rows)
				for _, p := range peers {
					for _, r := range p.Requests {
						a.say("Peer %s asked for something that it is not granted. To grant it: %s", p.Name, r.Command)
					}
				}
			})
		}),
	}
}

func (a *app) peerTrust() *cobra.Command {
	var in api.SetPeer
	cmd := a.setPeer("trust NAME --key FINGERPRINT", "Agree to another key of a peer", `Trust another key of a peer whose agent was made anew, by "twinspan init --adopt" after its
directory was lost. Its links go on; the key of before is refused from now on. The
fingerprint is what the peer's operator reads out by another way, such as a telephone:
whoever has that key is the peer.`,
		`  twinspan peer trust b --key SHA256:KzuMq1NBuauvuRZ72VGYW3Gu+xT+kA2VnnOuN6vEuVU`, &in)
	cmd.Flags().StringVar(&in.Fingerprint, "key", "", "`fingerprint` of the key, as init --adopt and peer export show it there")
	cmd.MarkFlagRequired("key")
	return cmd
}

func (a *app) peerSet() *cobra.Command {
	var in api.SetPeer
	in.Endpoint = new(string)
	cmd := a.setPeer("set NAME --endpoint HOST:PORT", "Dial a peer at another address", `Dial a peer at another address from now on. An empty one waits to be dialled: of two
peers only one needs to reach the other. A connection that there is stays.`,
		`  twinspan peer set b --endpoint db2.example.com:5022`, &in)
	cmd.Flags().StringVar(in.Endpoint, "endpoint", "", "`host:port` at which to dial it")
	cmd.MarkFlagRequired("endpoint")
	return cmd
}

func (a *app) setPeer(use, short, long, example string, in *api.SetPeer) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Example: example,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completePeers,
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := c.SetPeer(ctx, args[0], *in)
			if err != nil {
				return err
			}
			return a.answer(p, func(w io.Writer) { fmt.Fprintf(w, "peer %s at %s, %s\n", p.Name, dash(p.Endpoint), p.Fingerprint) })
		}),
	}
}

func (a *app) peerRemove() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "End the trust in a peer",
		Long: `Forget a peer's key: it is refused from now on. A peer that links depend on is not
removed; delete the links first, or end the trust at once with --force: the peer's
connections are cut, its links stand still and say so. The other side still trusts
this agent until it removes it as well.`,
		Example: `  twinspan peer remove b
  twinspan peer remove b --force`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completePeers,
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.RemovePeer(ctx, args[0], force); err != nil {
				return err
			}
			return a.answer(struct {
				Name string `json:"name"`
			}{args[0]}, func(w io.Writer) { fmt.Fprintf(w, "peer %s is removed\n", args[0]) })
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "end the trust at once, also when links depend on it")
	return cmd
}

func (a *app) peerRotate() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate",
		Short: "Replace this agent's key",
		Long: `Make a new key and certificate and hand them to every peer. The old key stays valid
until every peer has the new one, so no link is interrupted; a peer that is away gets
it when it comes back.`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			self, err := c.RotateKey(ctx)
			if err != nil {
				return err
			}
			return a.answer(self, func(w io.Writer) { fmt.Fprintf(w, "agent %s, %s\n", self.Name, self.Fingerprint) })
		}),
	}
}

// maxInput bounds what is read from a file or standard input.
const maxInput = 1 << 20

// read returns the text of a file, or of standard input for "-".
func (a *app) read(path string) (string, error) {
	in := a.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", problem.Wrap(err, problem.Invalid, "file_unreadable", "read the file")
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxInput))
	if err != nil {
		return "", problem.Wrap(err, problem.Invalid, "file_unreadable", "read the file")
	}
	return string(text), nil
}
