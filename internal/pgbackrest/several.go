package pgbackrest

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/problem"
)

// Several are the repositories of an instance for a restore: the sets are those of the first, and a file of the log that one does
// not have is looked for in the others.
type Several []*Engine

// Databases implements restore.Repository.
func (s Several) Databases(ctx context.Context, set string) ([]backup.Database, error) {
	return s[0].Databases(ctx, set)
}

// Restore implements restore.Repository.
func (s Several) Restore(ctx context.Context, set, only, dir string) error {
	return s[0].Restore(ctx, set, only, dir)
}

// Fetch implements restore.Repository.
func (s Several) Fetch(ctx context.Context, dir string) (string, error) {
	var b strings.Builder
	b.WriteString("worst=0\n")
	for _, e := range s {
		command, err := e.Fetch(ctx, dir)
		if err != nil {
			return "", err
		}
		b.WriteString(command + "\nstatus=$?\n[ $status = 0 ] && exit 0\n[ $status -gt $worst ] && worst=$status\n")
	}
	b.WriteString("(exit $worst)")
	return b.String(), nil
}

// Reason implements restore.Repository.
func (s Several) Reason(said string) *problem.Error { return s[0].Reason(said) }

// Segment implements restore.Repository and backup.Engine.
func (s Several) Segment(ctx context.Context, name, file string) error {
	var first error
	for _, e := range s {
		err := e.Segment(ctx, name, file)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// Segments implements restore.Repository.
func (s Several) Segments(ctx context.Context) ([]string, error) {
	var all []string
	var failed error
	for _, e := range s {
		list, err := e.Segments(ctx)
		failed = errors.Join(failed, err)
		all = append(all, list...)
	}
	if len(all) == 0 && failed != nil {
		return nil, failed
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
