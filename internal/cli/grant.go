package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
)

// The words of a grant on the command line.
var (
	grantDirections = []string{"from-here", "to-here"}
	grantOperations = []string{"link", "roles", "failover", "delete"}
	// What a grant lets do unless it says so: roles can log in, and are asked for by name.
	usualOperations = []string{"link", "failover", "delete"}
)

const grantWords = `A grant names a database of this side, or * for any, a direction and operations.
from-here: the peer may copy the database. to-here: the peer may make it a twin of a
database of its own. Operations are link (make a link, copy, follow, compare), roles
(make roles on this server), failover (have the sides change places) and delete
(remove the link here). Without direction and operations it is both, and link,
failover and delete. "all" is any database and everything, "none" nothing.`

// parseGrant reads DATABASE[:DIRECTION[:OPERATIONS]]. A database may have colons in its
// name: what stands behind the last ones counts where it is one of the words.
func parseGrant(text string) ([]api.Grant, error) {
	if text == "all" {
		return bothWays("*", grantDirections, grantOperations), nil
	}
	database, directions, operations := text, grantDirections, usualOperations
	if head, tail, ok := cutLast(database); ok {
		if list, ok := words(tail, grantOperations); ok {
			if head2, tail2, ok := cutLast(head); ok {
				if d, ok := direction(tail2); ok {
					database, directions, operations = head2, d, list
				}
			}
		} else if d, ok := direction(tail); ok {
			database, directions = head, d
		}
	}
	if database == "" || database == "none" {
		return nil, &api.Error{Kind: "invalid", Code: "grant_invalid", Text: fmt.Sprintf("%q is no grant", text), Hint: "write DATABASE[:DIRECTION[:OPERATIONS]], all, or none alone"}
	}
	return bothWays(database, directions, operations), nil
}

func cutLast(s string) (head, tail string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func direction(s string) ([]string, bool) {
	if s == "both" {
		return grantDirections, true
	}
	return []string{s}, slices.Contains(grantDirections, s)
}

// words reads a list of words, each of which must be known.
func words(s string, known []string) ([]string, bool) {
	list := strings.Split(s, ",")
	for _, w := range list {
		if !slices.Contains(known, w) {
			return nil, false
		}
	}
	return list, true
}

func bothWays(database string, directions, operations []string) []api.Grant {
	var list []api.Grant
	for _, d := range directions {
		list = append(list, api.Grant{Database: database, Direction: d, Operations: operations})
	}
	return list
}

// grantFlag adds --grant to a command and returns what it was given; nothing says that it
// was "none".
func grantFlag(cmd *cobra.Command, usage string) func() (list []api.Grant, nothing bool, err error) {
	var texts []string
	cmd.Flags().StringArrayVar(&texts, "grant", nil, usage)
	cmd.RegisterFlagCompletionFunc("grant", cobra.FixedCompletions([]string{"none\tnothing", "all\tany database, everything"}, cobra.ShellCompDirectiveNoFileComp))
	return func() (list []api.Grant, nothing bool, err error) {
		if len(texts) == 1 && texts[0] == "none" {
			return nil, true, nil
		}
		for _, text := range texts {
			more, err := parseGrant(text)
			if err != nil {
				return nil, false, err
			}
			list = append(list, more...)
		}
		return list, false, nil
	}
}

// grantsText says what a peer may do, one line for each database.
func grantsText(list []api.Grant) []string {
	var out []string
	for _, g := range list {
		database := g.Database
		if database == "*" {
			database = "any database"
		}
		way := "copied from here to the peer"
		if g.Direction == "to-here" {
			way = "copied from the peer to here"
		}
		text := fmt.Sprintf("%s, %s: %s", database, way, strings.Join(g.Operations, ", "))
		if g.Link != "" {
			text += " (with link " + g.Link + ")"
		}
		out = append(out, text)
	}
	return out
}

// sayGrants tells an operator what somebody may do here.
func (a *app) sayGrants(who string, list []api.Grant) {
	if len(list) == 0 {
		a.say("%s may check and measure the network, nothing else. twinspan peer grant lets it do more.", who)
		return
	}
	a.say("%s may do this here:", who)
	for _, l := range grantsText(list) {
		a.say("  %s", l)
	}
}

func (a *app) peerGrant() *cobra.Command {
	return a.grantCommand("grant NAME", "Show or widen what a peer may ask for",
		"Without --database, show what a peer may ask of this agent, and what it asked for and was\nrefused. With it, let the peer ask for more.\n\n"+grantWords,
		`  twinspan peer grant b
  twinspan peer grant b --database sales --direction to-here
  twinspan peer grant b --database '*' --direction from-here --operations link`,
		func(ctx context.Context, c *client.Client, name string, list []api.Grant) (api.Peer, error) {
			if len(list) == 0 {
				return peerNamed(ctx, c, name)
			}
			return c.GrantPeer(ctx, name, list...)
		})
}

func (a *app) peerRevoke() *cobra.Command {
	return a.grantCommand("revoke NAME --database DB", "Narrow what a peer may ask for",
		"Take from a peer what it was granted, from its next request on. A link that needs it\nstands still until it is granted again.\n\n"+grantWords,
		`  twinspan peer revoke b --database '*' --operations link,roles,failover,delete`,
		func(ctx context.Context, c *client.Client, name string, list []api.Grant) (api.Peer, error) {
			if len(list) == 0 {
				return api.Peer{}, errNoDatabase
			}
			return c.RevokePeer(ctx, name, list...)
		})
}

// errNoDatabase is of a command line that names nothing to revoke.
var errNoDatabase = &api.Error{Kind: "invalid", Code: "grant_invalid", Text: "no database is named", Hint: "give --database DB, or --database '*' for what holds for any"}

func (a *app) grantCommand(use, short, long, example string, do func(context.Context, *client.Client, string, []api.Grant) (api.Peer, error)) *cobra.Command {
	var database, way string
	operations := usualOperations
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Example: example,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completePeers,
		PreRunE: func(*cobra.Command, []string) error {
			if _, ok := direction(way); !ok {
				return fmt.Errorf("there is no direction %q: use from-here, to-here or both", way)
			}
			if _, ok := words(strings.Join(operations, ","), grantOperations); !ok {
				return fmt.Errorf("operations are link, roles, failover and delete, not %q", strings.Join(operations, ","))
			}
			return nil
		},
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			var list []api.Grant
			if database != "" {
				directions, _ := direction(way)
				list = bothWays(database, directions, operations)
			}
			p, err := do(ctx, c, args[0], list)
			if err != nil {
				return err
			}
			return a.answer(p, func(w io.Writer) {
				fmt.Fprintf(w, "peer %s\n", p.Name)
				for _, l := range grantsText(p.Grants) {
					fmt.Fprintf(w, "  may    %s\n", l)
				}
				if len(p.Grants) == 0 {
					fmt.Fprintln(w, "  may    check and measure the network, nothing else")
				}
				for _, r := range p.Requests {
					fmt.Fprintf(w, "  asked  %s %s %s at %s: %s\n", r.Database, dash(r.Direction), r.Operation, when(r.At), r.Command)
				}
			})
		}),
	}
	cmd.Flags().StringVar(&database, "database", "", "`name` of the database on this side, or * for any")
	cmd.Flags().StringVar(&way, "direction", "both", "`way` of the rows: from-here, to-here or both")
	cmd.Flags().StringSliceVar(&operations, "operations", usualOperations, "`list` of link, roles, failover, delete")
	cmd.RegisterFlagCompletionFunc("direction", cobra.FixedCompletions([]string{"from-here", "to-here", "both"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("operations", cobra.FixedCompletions(grantOperations, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// peerNamed is one of the agent's peers.
func peerNamed(ctx context.Context, c *client.Client, name string) (api.Peer, error) {
	peers, err := c.Peers(ctx)
	if err != nil {
		return api.Peer{}, err
	}
	i := slices.IndexFunc(peers, func(p api.Peer) bool { return p.Name == name })
	if i < 0 {
		return api.Peer{}, &api.Error{Kind: "not_found", Code: "peer_unknown", Text: fmt.Sprintf("no peer is called %q", name), Hint: "twinspan peer list shows the peers"}
	}
	return peers[i], nil
}
