//go:generate go test . -count=1 -run TestHelpReadsAsWritten -update

package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

const rootLong = `Twinspan links one PostgreSQL database to its twin on another instance: it copies
the database while it is in use, then keeps the twin in step.

Each instance has an agent, a process beside it that "twinspan serve" runs from a
directory of its own. Two agents that trust each other are peers; a link ties a
database of one to a database of the other. All other commands speak to a running
agent, through the socket in its directory (--dir), or over the network (--api).

To see it work on this machine, with two instances made for the purpose:

    twinspan demo

To link a database of your own, on each side:

    twinspan init --dir /var/lib/twinspan --name a --postgres 'host=/run/postgresql user=postgres'
    twinspan serve --dir /var/lib/twinspan

then make the two agents peers and create the link, at the database's side:

    twinspan peer invite                                   (on a)
    twinspan peer join TOKEN                               (on b)
    twinspan link create sales --database sales --peer b   (on a)

The answer of a command goes to standard output, everything else to standard error.
With -o json the answer is the object of the REST interface, and where there is none the
error is. "twinspan explain CODE" explains the code of an error.

Exit status: 0 done; 1 failed, with an "error:" line that holds a stable code and a
"hint:" line; 2 the command line is wrong.

Environment: TWINSPAN_DIR, TWINSPAN_API and TWINSPAN_TOKEN stand for --dir, --api and
--token.`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "twinspan",
		Short:         "Link a PostgreSQL database to its twin on another instance",
		Long:          rootLong,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          needsCommand,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if o := a.flags.output; o != "table" && o != "json" && !(o == "csv" && cmd.Name() == "usage") {
				return fmt.Errorf("there is no output %q: use table or json", o)
			}
			return nil
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.flags.dir, "dir", "", "the agent's `directory` (TWINSPAN_DIR)")
	flags.StringVar(&a.flags.api, "api", "", "`url` of an agent's API, instead of --dir (TWINSPAN_API)")
	flags.StringVar(&a.flags.token, "token", "", "`token` for --api; better in TWINSPAN_TOKEN, where no list of processes shows it")
	flags.StringVarP(&a.flags.output, "output", "o", "table", "`form` of the answer: table or json")
	flags.BoolVar(&a.flags.noWait, "no-wait", false, "return at once where a command would wait for the link")
	root.MarkFlagsMutuallyExclusive("dir", "api")
	root.AddGroup(
		&cobra.Group{ID: "agent", Title: "Agent:"},
		&cobra.Group{ID: "links", Title: "Peers and links:"},
		&cobra.Group{ID: "other", Title: "Other:"},
	)
	root.SetHelpCommandGroupID("other")
	root.SetCompletionCommandGroupID("other")
	root.AddCommand(
		a.initCommand(), a.serveCommand(), a.apiCommand(), a.instanceCommand(), a.usageCommand(), a.memberCommand(), a.backupCommand(),
		a.peerCommand(), a.checkCommand(), a.linkCommand(), a.databaseCommand(), a.eventsCommand(), a.uiCommand(),
		a.demoCommand(), a.explainCommand(), a.versionCommand(), manCommand(),
	)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	return root
}

// needsCommand is the body of a command that only groups others.
func needsCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("there is no command %q in %q", args[0], cmd.CommandPath())
	}
	return cmd.Help()
}

// group makes a command that only groups others.
func group(name, in, short, long string, members ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, GroupID: in, Short: short, Long: long, Args: cobra.ArbitraryArgs, RunE: needsCommand}
	cmd.AddCommand(members...)
	return cmd
}

// address is how the agent was named: by flags before the environment, and by
// the API before the directory where both are equally near.
func (a *app) address() (dir, api, token string) {
	token = a.flags.token
	if token == "" {
		token = os.Getenv("TWINSPAN_TOKEN")
	}
	if a.flags.dir != "" || a.flags.api != "" {
		return a.flags.dir, a.flags.api, token
	}
	return os.Getenv("TWINSPAN_DIR"), os.Getenv("TWINSPAN_API"), token
}
