package cli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/terminal"
)

func (a *app) databaseCommand() *cobra.Command {
	return group("database", "links", "Look at the databases of the instance, copy and restore them",
		`The databases of the agent's instance, the links that they are part of, independent copies of them, and restores out of
the backups of a managed instance.`, a.databaseList(), a.databaseCopy(), a.databaseCopies(), a.databaseRestore(), a.databaseRestorable())
}

func (a *app) databaseList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the databases",
		Long:  `List the databases of the agent's instance, with their size and links.`,
		Args:  cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			databases, err := c.Databases(ctx)
			if err != nil {
				return err
			}
			return a.answer(databases, func(w io.Writer) {
				var rows [][]string
				for _, d := range databases {
					var links []string
					for _, l := range d.Links {
						links = append(links, l.Name+" ("+string(l.Role)+", "+phrase(l.Phase)+")")
					}
					rows = append(rows, []string{d.Name, d.Owner, terminal.Size(d.Bytes), dash(strings.Join(links, ", "))})
				}
				terminal.Table(w, []string{"NAME", "OWNER", "SIZE", "LINKS"}, rows)
			})
		}),
	}
}
