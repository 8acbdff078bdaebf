package restore

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/twinspan/twinspan/internal/problem"
)

// elsewhere is a directory for a Unix socket whose ordinary path would be too long. Nobody guesses its name.
func elsewhere(id string) string { return filepath.Join(os.TempDir(), "twinspan-restore-"+id) }

// Sweep ends and removes the temporary servers of killed processes. underWay lists the ids of those that are to stay.
func Sweep(ctx context.Context, dir string, underWay func() []string, log *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return problem.Wrap(err, problem.Unauthorised, "restore_dir_unreadable",
			"the directory of restores cannot be read").On(dir).
			WithHint("run the agent as the user that made it")
	}
	busy := underWay() // behind the list: a restore is known before its directory is made
	var failed error
	for _, e := range entries {
		if slices.Contains(busy, e.Name()) {
			continue
		}
		log.Info("what a restore has left is removed", "id", e.Name())
		s := temporary(dir, e.Name())
		s.Log = log
		failed = errors.Join(failed, s.Discard(ctx))
	}
	return failed
}
