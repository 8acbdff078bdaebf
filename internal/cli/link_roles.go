package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/terminal"
)

const linkRolesLong = `Compare the roles of the primary that the link's database needs, or that have used it
in the last day, with those of the secondary's instance: who is missing, lacks attributes
or memberships, or could not log in when the sides have changed places. Passwords are
compared by digests; one that was set on each side by itself differs, also when it is
the same word.

--apply brings what is missing: roles that are not there are created as the primary has
them, others are given what they lack. SUPERUSER, REPLICATION and memberships that reach
the server's files are left to the instance's owner, and named. Nothing is taken from a
role. At the primary's agent it needs the peer's grant "roles", and changes only roles
that came with the link; with --with-passwords passwords cross, too, as the hashes that
servers keep.`

func (a *app) linkRoles() *cobra.Command {
	in := api.BringRoles{}
	apply := false
	cmd := &cobra.Command{
		Use:   "roles NAME",
		Short: "Compare the roles of both sides, and bring what is missing",
		Long:  linkRolesLong,
		Example: `  twinspan link roles sales
  twinspan link roles sales --apply`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLinks,
		PreRunE: func(*cobra.Command, []string) error {
			if in.WithPasswords && !apply {
				return errors.New("--with-passwords is for --apply")
			}
			return nil
		},
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			show := c.LinkRoles
			if apply {
				show = func(ctx context.Context, name string) (api.LinkRoles, error) { return c.BringRoles(ctx, name, in) }
			}
			l, err := show(ctx, args[0])
			if err != nil {
				return err
			}
			return a.answer(l, func(w io.Writer) { showRoles(w, l) })
		}),
	}
	cmd.Flags().BoolVar(&apply, "apply", false, "give roles on the secondary what they have on the primary")
	cmd.Flags().BoolVar(&in.WithPasswords, "with-passwords", false, "with --apply, at the primary's agent: with their passwords")
	return cmd
}

func showRoles(w io.Writer, l api.LinkRoles) {
	for _, d := range l.Done {
		fmt.Fprintf(w, "%s: %s\n", d.Name, d.Text)
	}
	var rows [][]string
	for _, r := range l.Roles {
		used := "-"
		if r.UsedAt != nil {
			used = when(*r.UsedAt)
		}
		rows = append(rows, []string{r.Name, string(r.State), string(r.Password), used, dash(r.Refused), strings.Join(r.Lacks, ", ")})
	}
	if len(rows) == 0 {
		fmt.Fprintf(w, "%s: the database needs no roles\n", l.Link)
		return
	}
	terminal.Table(w, []string{"ROLE", "AT " + strings.ToUpper(l.Agent), "PASSWORD", "USED", "LOGIN REFUSED", "LACKS"}, rows)
}
