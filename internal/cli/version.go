package cli

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    `Print the version of the program and of Go that it was built with.`,
		GroupID: "other",
		Args:    cobra.NoArgs,
		RunE: runs(func(*cobra.Command, []string) error {
			v := api.VersionInfo{Version: a.deps.Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			return a.answer(v, func(w io.Writer) { fmt.Fprintf(w, "twinspan %s (%s, %s)\n", v.Version, v.Go, v.Platform) })
		}),
	}
}
