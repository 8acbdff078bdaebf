package backup

import (
	"log/slog"
	"maps"
	"slices"

	"github.com/twinspan/twinspan/internal/problem"
)

// problems are what is wrong now, by what they are about; Keeper.mu guards them.
type problems map[string]*problem.Error

// raise notes what is wrong with something, or, with nil, that nothing is any more.
func (all problems) raise(about string, err error, log *slog.Logger) {
	old := all[about]
	if err == nil {
		if old != nil {
			log.Info("backups: solved", "code", old.Code)
		}
		delete(all, about)
		return
	}
	p := problem.As(err)
	if p.Kind == problem.Cancelled {
		return
	}
	if old == nil || old.Code != p.Code || old.Error() != p.Error() {
		log.Error("backups", "code", p.Code, "error", p, "subject", p.Subject, "hint", p.Hint)
	}
	all[about] = p
}

func (all problems) list() (list []*problem.Error) {
	for _, about := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[about])
	}
	return list
}
