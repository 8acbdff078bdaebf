package restore

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

// What pg_waldump of 15 says.
const said = `first record is after 0/3000000, at 0/3000028, skipping over 40 bytes
rmgr: Database    len (rec/tot):     38/    38, tx:        746, lsn: 0/03000028, prev 0/02FFFFD8, desc: DROP dir 1663/16401
rmgr: Database    len (rec/tot):     42/    42, tx:        747, lsn: 0/03000100, prev 0/030000D8, desc: CREATE_FILE_COPY copy dir 1663/1 to 1663/16402
rmgr: Database    len (rec/tot):     42/    42, tx:        750, lsn: 1/12EA0E38, prev 1/12EA0DF0, desc: DROP dir 1663/16402 16500/16401
rmgr: Transaction len (rec/tot):     82/    82, tx:        751, lsn: 0/15D4F0A8, prev 0/15D4F060, desc: COMMIT 2026-11-30 10:00:01.000001 UTC; origin: node 3, lsn 0/1A2B3C8, at 2026-11-30 09:59:59.5 UTC
rmgr: Transaction len (rec/tot):     82/    82, tx:        752, lsn: 0/15D4F0F8, prev 0/15D4F0A8, desc: COMMIT 2026-11-30 10:00:02.000001 UTC; inval msgs: catcache 51; origin: node 3, lsn 0/1A2B3D0, at 2000-01-01 00:00:00.000001 UTC
rmgr: Transaction len (rec/tot):     34/    34, tx:        753, lsn: 0/15D4F148, prev 0/15D4F0F8, desc: COMMIT 2026-11-30 10:00:03.000001 UTC
rmgr: Transaction len (rec/tot):     82/    82, tx:        754, lsn: 0/15D4F170, prev 0/15D4F148, desc: ABORT 2026-11-30 10:00:03.000001 UTC; origin: node 3, lsn 0/1A2B3D0, at 2000-01-01 00:00:00.000001 UTC
`

func TestRecords(t *testing.T) {
	var dropped [][]uint32
	var commits []applied
	for line := range strings.Lines(said) {
		r, ok := parseRecord(line)
		if !ok {
			continue
		}
		if oids := droppedIn(r.text); oids != nil {
			dropped = append(dropped, oids)
		}
		if c, ok := parseApplied(r, 3); ok {
			commits = append(commits, c)
		}
		if c, ok := parseApplied(r, 33); ok {
			t.Errorf("of another node: %+v", c)
		}
	}
	if want := [][]uint32{{16401}, {16402, 16401}}; !slices.EqualFunc(dropped, want, slices.Equal[[]uint32]) {
		t.Errorf("%v were dropped, not %v", dropped, want)
	}
	want := []applied{{0x15D4F0A8, 0x1A2B3C8, time.Date(2026, 11, 30, 9, 59, 59, 500_000_000, time.UTC)}, {at: 0x15D4F0F8, position: 0x1A2B3D0}}
	if !slices.Equal(commits, want) {
		t.Errorf("%+v, not %+v", commits, want)
	}
}

func TestSettings(t *testing.T) {
	moment := time.Date(2026, 11, 30, 11, 15, 0, 1000, time.FixedZone("", 3600))
	for _, c := range []struct {
		target Target
		want   map[string]string
	}{
		{Target{Time: moment}, map[string]string{"recovery_target_time": "2026-11-30 10:15:00.000001+00",
			"recovery_target_lsn": "", "recovery_target_timeline": "latest"}},
		{Target{Before: 0x12EA0E38, Timeline: 7}, map[string]string{"recovery_target_time": "",
			"recovery_target_lsn": "0/12EA0E38", "recovery_target_inclusive": "off", "recovery_target_timeline": "7"}},
		{Target{Time: moment, through: 0x12EA0E38}, map[string]string{"recovery_target_time": "", "recovery_target_lsn": "0/12EA0E38",
			"recovery_target_inclusive": "", "recovery_target_timeline": "latest"}},
		{Target{Time: moment, atOnce: true}, map[string]string{"recovery_target_time": "", "recovery_target": "immediate"}},
		{Target{}, map[string]string{"recovery_target_time": "", "recovery_target_lsn": "", "archive_mode": "off",
			"restore_command": `sh '/a 100%% b'\''s/pgbackrest-fetch' %f "%p"`}},
	} {
		got := settings("/a 100% b's", c.target)
		for name, want := range c.want {
			if got[name] != want {
				t.Errorf("%+v: %s is %q, not %q", c.target, name, got[name], want)
			}
		}
	}
}

// What has to stay free is asked for, but of no disk more than a part.
func TestRoom(t *testing.T) {
	dir := t.TempDir()
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		t.Fatal(err)
	}
	whole := int64(disk.Blocks) * int64(disk.Bsize)
	room := func(spare, need int64) error {
		r := &Restore{Dir: dir, ID: "x", Spare: spare, Like: &instance.Server{}, Log: slog.New(slog.DiscardHandler)}
		r.server = r.fresh()
		return r.room(need)
	}
	needed := func(err error) string {
		if problem.CodeOf(err) != "restore_space_short" {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(err.Error(), " MB")
		return text
	}
	plain, spared, all := needed(room(0, whole)), needed(room(1<<20, whole)), needed(room(math.MaxInt64, whole))
	want := func(spare int64) string {
		return fmt.Sprintf("the restore needs about %d", (whole+reserve+spare)>>20)
	}
	if plain != want(0) || spared != want(1<<20) || all != want(whole/10) {
		t.Errorf("%q, %q, %q", plain, spared, all)
	}
}
