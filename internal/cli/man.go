package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twinspan/twinspan/internal/problem"
)

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages",
		GroupID: "other",
		Long: `Write a manual page for every command, section 1, into a directory that exists. They
hold what --help prints.`,
		Example: `  twinspan man /usr/local/share/man/man1`,
		Args:    cobra.ExactArgs(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.InitDefaultHelpCmd()
			root.InitDefaultCompletionCmd()
			return writePages(root, args[0])
		}),
	}
}

func writePages(cmd *cobra.Command, dir string) error {
	path := filepath.Join(dir, pageName(cmd)+".1")
	f, err := os.Create(path)
	if err == nil {
		page(f, cmd)
		err = f.Close()
	}
	if err != nil {
		return problem.Wrap(err, problem.Invalid, "file_not_writable", "write the manual page")
	}
	for _, c := range documented(cmd) {
		if err := writePages(c, dir); err != nil {
			return err
		}
	}
	return nil
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// documented returns the members of a command that have a page.
func documented(cmd *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && !c.IsAdditionalHelpTopicCommand() {
			all = append(all, c)
		}
	}
	return all
}

// page writes one manual page in roff with the macros of man(7).
func page(w io.Writer, cmd *cobra.Command) {
	section := func(title string) { fmt.Fprintf(w, ".SH %s\n", title) }
	fmt.Fprintf(w, ".TH %s 1 \"\" \"twinspan\" \"Twinspan\"\n", roffQuote(strings.ToUpper(pageName(cmd))))
	section("NAME")
	fmt.Fprintf(w, "%s \\- %s\n", roff(pageName(cmd)), roff(cmd.Short))
	section("SYNOPSIS")
	fmt.Fprintf(w, "\\fB%s\\fR\n", roff(cmd.UseLine()))
	section("DESCRIPTION")
	prose(w, cmd.Long)
	if members := documented(cmd); len(members) > 0 {
		section("COMMANDS")
		for _, c := range members {
			fmt.Fprintf(w, ".TP\n\\fB%s\\fR\n%s\n", roff(c.Name()), roff(c.Short))
		}
	}
	options(w, "OPTIONS", cmd.NonInheritedFlags())
	options(w, "GLOBAL OPTIONS", cmd.InheritedFlags())
	if cmd.Example != "" {
		section("EXAMPLES")
		fmt.Fprintf(w, ".nf\n%s\n.fi\n", roff(cmd.Example))
	}
	related(w, cmd)
}

func options(w io.Writer, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(w, ".SH %s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		text := "\\fB" + roff("--"+f.Name) + "\\fR"
		if f.Shorthand != "" {
			text = "\\fB" + roff("-"+f.Shorthand) + "\\fR, " + text
		}
		if name != "" {
			text += " \\fI" + roff(name) + "\\fR"
		}
		fmt.Fprintf(w, ".TP\n%s\n%s\n", text, roff(usage))
	})
}

func related(w io.Writer, cmd *cobra.Command) {
	var names []string
	if cmd.HasParent() {
		names = append(names, pageName(cmd.Parent()))
	}
	for _, c := range documented(cmd) {
		names = append(names, pageName(c))
	}
	if len(names) == 0 {
		return
	}
	fmt.Fprint(w, ".SH SEE ALSO\n")
	for i, n := range names {
		end := ","
		if i == len(names)-1 {
			end = ""
		}
		fmt.Fprintf(w, ".BR %s (1)%s\n", roff(n), end)
	}
}

// prose writes paragraphs; one whose lines are indented stays as it is set.
func prose(w io.Writer, text string) {
	for i, paragraph := range strings.Split(text, "\n\n") {
		if strings.HasPrefix(paragraph, "    ") {
			fmt.Fprintf(w, ".PP\n.nf\n%s\n.fi\n", roff(paragraph))
			continue
		}
		if i > 0 {
			fmt.Fprint(w, ".PP\n")
		}
		fmt.Fprintf(w, "%s\n", roff(paragraph))
	}
}

// roff escapes what man(7) would read as markup.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

func roffQuote(s string) string { return `"` + roff(s) + `"` }
