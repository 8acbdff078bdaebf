package agent

import (
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

const (
	// fillingSoon is how long before storage is used up that is a problem, and fillingNow how long before that it blocks.
	fillingSoon = 24 * time.Hour
	fillingNow  = 2 * time.Hour
	// leastFree is what a server needs to go on at all: a checkpoint, a segment of its log, some pages.
	leastFree = 64 << 20
)

func bytesText(n int64) string { return terminal.Size(n) }

// problems lists what is wrong with the size and the storage. s.mu is held.
func (s *sizing) problems(now time.Time, dir string) []*problem.Error {
	var list []*problem.Error
	add := func(p *problem.Error) { list = append(list, p) }
	if over := s.size.Exceeds(machine()); len(over) > 0 {
		add(problem.New(problem.Resource, "instance_exceeds_machine", "the instance is declared to have more than its machine has: %s", strings.Join(over, ", ")).On("size").
			WithHint("declare what there is (twinspan instance set), or give the machine more; the settings of the server follow from what there is"))
	}
	if s.programs != nil {
		add(s.programs)
	}
	if s.installed.Newer(s.running) {
		add(problem.New(problem.Conflict, "instance_update_pending", "the server runs PostgreSQL %s, and %s is installed", s.running, s.installed).On("server").
			WithHint("twinspan instance update, when its sessions may end"))
	}
	if s.settings != nil && len(s.settings.Pending) > 0 {
		add(problem.New(problem.Conflict, "instance_restart_pending", "settings wait for a restart of the server: %s", strings.Join(s.settings.Pending, ", ")).On("settings").
			WithHint("twinspan instance set --restart, when its sessions may end"))
	}
	if s.settings != nil && len(s.settings.Overridden) > 0 {
		add(problem.New(problem.Conflict, "instance_setting_overridden", "settings do not follow from the size of the instance, for somebody has set them otherwise: %s", strings.Join(s.settings.Overridden, ", ")).On("settings").
			WithHint("ALTER SYSTEM RESET brings them back; or leave them, if that is meant"))
	}
	if s.trouble != nil {
		add(s.trouble)
	}
	if s.storage == nil {
		return list
	}
	used, limit, free := bytesText(s.storage.UsedBytes), bytesText(s.storage.LimitBytes), s.storage.FreeBytes
	const room = "remove data or log that nobody needs (twinspan link show names links that keep log), or give the instance more: twinspan instance set --storage"
	small := s.size.Storage > 0 && s.storage.LimitBytes < s.size.Storage
	if small {
		add(problem.New(problem.Resource, "storage_exceeds_disk", "the instance is declared to have %s of storage, its file system lets it have %s", bytesText(s.size.Storage), limit).On(dir).
			WithHint("make the file system larger, or declare what there is: twinspan instance set --storage"))
	}
	left := time.Duration(1<<63 - 1)
	if s.storage.FullAt != nil {
		left = s.storage.FullAt.Sub(now)
	}
	switch {
	case free < leastFree && s.storage.FileSystem < leastFree:
		add(problem.New(problem.Resource, "storage_full", "the disk of the instance is full: %s are used, %s are left; the server stops when it can write no log", used, bytesText(s.storage.FileSystem)).On(dir).WithHint("%s", room))
	case free < leastFree:
		add(problem.New(problem.Resource, "storage_full", "the storage of the instance is used up: %s of %s. The server goes on, on what its disk has beside that: %s", used, limit, bytesText(s.storage.FileSystem)).On(dir).WithHint("%s", room))
	case left < fillingNow:
		add(problem.New(problem.Resource, "storage_full_soon", "the storage of the instance is used up in %s: %s of %s are used", terminal.Duration(max(0, left.Seconds())), used, limit).On(dir).WithHint("%s", room))
	case left < fillingSoon:
		add(problem.New(problem.Resource, "storage_filling", "the storage of the instance is used up in %s: %s of %s are used", terminal.Duration(left.Seconds()), used, limit).On(dir).WithHint("%s", room))
	case free < s.storage.LimitBytes/10:
		add(problem.New(problem.Resource, "storage_short", "the storage of the instance has little left: %s of %s are used", used, limit).On(dir).WithHint("%s", room))
	}
	return list
}
