package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

// mostLike is how many codes are named of those that may have been meant.
const mostLike = 8

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "explain CODE",
		Short:   "Explain the code of a problem",
		GroupID: "other",
		Long: `Say what the code of a problem means, how much it matters and what to do: the code in
the brackets of an "error:" line, of a link's problems, or of what "twinspan check" finds.
No agent is asked. docs/problems.md has the same of all codes.`,
		Example: `  twinspan explain wal_level_low`,
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, prefix string) (fit []string, _ cobra.ShellCompDirective) {
			for _, area := range problem.Catalogue() {
				for _, e := range area.Entries {
					if len(args) == 0 && strings.HasPrefix(e.Code, prefix) {
						fit = append(fit, cobra.CompletionWithDesc(e.Code, e.Title))
					}
				}
			}
			return fit, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: runs(func(_ *cobra.Command, args []string) error {
			e, known := problem.Describe(strings.Trim(args[0], "[]"))
			if !known {
				p := problem.New(problem.NotFound, "code_unknown", "there is no code %q", args[0]).On(args[0])
				if like := problem.Like(args[0]); len(like) > 0 {
					return p.WithHint("there are: %s", strings.Join(like[:min(len(like), mostLike)], ", "))
				}
				return p.WithHint("docs/problems.md lists all of them")
			}
			out := api.Explanation{Code: e.Code, Severity: api.Severity(e.Severity), Title: e.Title, Meaning: e.Meaning, Remedy: e.Remedy}
			return a.answer(out, func(w io.Writer) {
				fmt.Fprintf(w, "%s (%s): %s\n", e.Code, e.Severity, e.Title)
				if e.Meaning != "" {
					fmt.Fprintf(w, "  %s\n", e.Meaning)
				}
				if e.Remedy != "" {
					fmt.Fprintf(w, "  remedy: %s\n", e.Remedy)
				}
			})
		}),
	}
}
