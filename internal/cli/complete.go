package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/terminal"
)

// completeTimeout bounds how long a shell waits for the agent.
const completeTimeout = 2 * time.Second

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

func (a *app) completeLinks(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(cmd, prefix, func(ctx context.Context, c *client.Client) (names []string, err error) {
		links, err := c.Links(ctx)
		for _, l := range links {
			names = append(names, cobra.CompletionWithDesc(l.Name, string(l.Role)+", "+phrase(l.Phase)))
		}
		return names, err
	})
}

func (a *app) completePeers(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, prefix, func(ctx context.Context, c *client.Client) (names []string, err error) {
		peers, err := c.Peers(ctx)
		for _, p := range peers {
			names = append(names, cobra.CompletionWithDesc(p.Name, p.Endpoint))
		}
		return names, err
	})
}

func (a *app) completeDatabases(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, prefix, func(ctx context.Context, c *client.Client) (names []string, err error) {
		databases, err := c.Databases(ctx)
		for _, d := range databases {
			names = append(names, cobra.CompletionWithDesc(d.Name, terminal.Size(d.Bytes)))
		}
		return names, err
	})
}

func (a *app) completeRestorable(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, prefix, func(ctx context.Context, c *client.Client) (names []string, err error) {
		databases, err := c.RestorableDatabases(ctx)
		for _, d := range databases {
			names = append(names, cobra.CompletionWithDesc(d.Name, clock(d.From)+" to "+clock(d.Until)))
		}
		return names, err
	})
}

// complete asks the agent; where none answers there is nothing to complete.
func (a *app) complete(cmd *cobra.Command, prefix string, ask func(context.Context, *client.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	c, err := a.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	names, err := ask(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var fit []string
	for _, n := range names {
		if strings.HasPrefix(n, prefix) {
			fit = append(fit, n)
		}
	}
	return fit, cobra.ShellCompDirectiveNoFileComp
}

// completeFlag gives a flag its completion. It fails only for a flag that the
// command does not have, which the tests of every command's help would show.
func (a *app) completeFlag(cmd *cobra.Command, flag string, f completion) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err)
	}
}
