package restore

import (
	"testing"
	"time"
)

// What pg_waldump of 15 says. The first record is of a change of the tablespace.
const said = `rmgr: Database    len (rec/tot):     38/    38, tx:        746, lsn: 0/03000028, prev 0/02FFFFD8, desc: DROP dir 1663/16401
rmgr: Database    len (rec/tot):     42/    42, tx:        747, lsn: 0/03000100, prev 0/030000D8, desc: CREATE_FILE_COPY copy dir 1663/1 to 1663/16402
rmgr: Database    len (rec/tot):     42/    42, tx:        750, lsn: 1/12EA0E38, prev 1/12EA0DF0, desc: DROP dir 1663/16402 16500/16401
rmgr: Database    len (rec/tot):     38/    38, tx:        751, lsn: 1/12EA0F00, prev 1/12EA0E38, desc: DROP dir 16401/16403
`

func TestDropOf(t *testing.T) {
	for oid, want := range map[uint32]string{16401: "1/12EA0E38", 16403: "1/12EA0F00", 16402: "1/12EA0E38"} {
		if at, ok := dropOf(said, oid); !ok || at.String() != want {
			t.Errorf("%d: %s, %t", oid, at, ok)
		}
	}
	if at, ok := dropOf(said, 1663); ok {
		t.Errorf("a tablespace is no database: %s", at)
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
