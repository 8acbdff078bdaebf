package cli

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/access"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

const apiLong = `The REST interface over TCP asks for a token. A reader's token may look, and sees no
values of rows; an operator's may do everything. Tokens are kept as hashes, so each
is shown once, when it is made.

The interface is served over TCP when twinspan.toml has a [api] listen, which "init
--api" writes and which may be added later; the agent makes the certificate.`

func (a *app) apiCommand() *cobra.Command {
	tokens := group("token", "", "Make, list and end tokens", apiLong, a.tokenCreate(), a.tokenList(), a.tokenRevoke())
	return group("api", "agent", "Tokens of the REST interface", apiLong, tokens)
}

// accessOf finds what the API of the agent in --dir needs, and makes what is missing.
func (a *app) accessOf() (config.Dir, config.API, error) {
	dir, err := a.dir()
	if err != nil {
		return dir, config.API{}, err
	}
	if !dir.Initialised() {
		return dir, config.API{}, problem.New(problem.NotFound, "not_initialised", "there is no agent in %s", dir.Path()).
			WithHint("name the directory that was given to twinspan init")
	}
	c, err := dir.Load()
	if err != nil {
		return dir, c.API, err
	}
	host, _, err := net.SplitHostPort(c.API.Listen)
	if err != nil {
		host = "localhost" // not served yet
	}
	return dir, c.API, access.Ensure(dir.Access(), host, c.API)
}

func (a *app) tokenCreate() *cobra.Command {
	var role, label string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token",
		Long: `Make a token and print it; it is shown this once. The agent in --dir takes it at
once, running or not.`,
		Example: `  twinspan api token create --role reader --label prometheus`,
		Args:    cobra.NoArgs,
		RunE: runs(func(*cobra.Command, []string) error {
			dir, c, err := a.accessOf()
			if err != nil {
				return err
			}
			token, e, err := access.CreateToken(dir.Access(), c, access.Role(role), label)
			if err != nil {
				return err
			}
			made := describeToken(e)
			made.Token = token
			return a.answer(made, func(w io.Writer) {
				fmt.Fprintln(w, token)
				a.say("It is the token %s, a %s's, and is shown this once.", e.ID, e.Role)
				if c.Listen == "" {
					a.say("The agent does not serve the interface over TCP yet: set [api] listen in %s and restart it.", terminal.Quoted(dir.File()))
				}
			})
		}),
	}
	cmd.Flags().StringVar(&role, "role", string(access.Reader), "`role` of its holder: reader or operator")
	cmd.Flags().StringVar(&label, "label", "", "`text` that says what it is for")
	cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"reader\tmay look, but not at rows", "operator\tmay do everything"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func describeToken(e access.Entry) api.Token {
	t := api.Token{ID: e.ID, Role: string(e.Role), Label: e.Label}
	if !e.Created.IsZero() {
		created := e.Created
		t.CreatedAt = &created
	}
	return t
}

func (a *app) tokenList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tokens",
		Long:  `List the tokens of the agent in --dir, without their secrets, which nobody has.`,
		Args:  cobra.NoArgs,
		RunE: runs(func(*cobra.Command, []string) error {
			dir, err := a.dir()
			if err != nil {
				return err
			}
			entries, err := access.ListTokens(dir.Access())
			if err != nil {
				return err
			}
			list := []api.Token{}
			for _, e := range entries {
				list = append(list, describeToken(e))
			}
			return a.answer(list, func(w io.Writer) {
				var rows [][]string
				for _, t := range list {
					made := time.Time{}
					if t.CreatedAt != nil {
						made = *t.CreatedAt
					}
					rows = append(rows, []string{t.ID, t.Role, dash(t.Label), when(made)})
				}
				terminal.Table(w, []string{"ID", "ROLE", "LABEL", "CREATED"}, rows)
			})
		}),
	}
}

func (a *app) tokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID",
		Short:   "End a token",
		Long:    `End a token: a running agent refuses it from the next request on.`,
		Example: `  twinspan api token revoke 1f3a90bc`,
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			dir, err := a.dir()
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			entries, _ := access.ListTokens(dir.Access())
			var ids []string
			for _, e := range entries {
				ids = append(ids, e.ID+"\t"+string(e.Role)+" "+e.Label)
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: runs(func(_ *cobra.Command, args []string) error {
			dir, err := a.dir()
			if err != nil {
				return err
			}
			gone, err := access.RevokeToken(dir.Access(), args[0])
			if err != nil {
				return err
			}
			return a.answer(describeToken(gone), func(w io.Writer) { fmt.Fprintf(w, "token %s, a %s's, is ended\n", gone.ID, gone.Role) })
		}),
	}
}
