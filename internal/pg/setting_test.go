package pg_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// A synchronous_commit that Twinspan set is none of the database's settings; one that
// somebody else set is.
func TestDatabaseSettingsLeaveOutOurs(t *testing.T) {
	s := pgtest.Shared(t)
	name := s.Database(t)
	conn := connect(t, s.DSN(name), pg.Session{Name: "test"})
	set := `ALTER DATABASE ` + sqlname.Quote(name) + ` SET `
	exec(t, conn, set+`synchronous_commit = local`)
	for _, c := range []struct {
		sql  string
		want []pg.Setting
	}{
		{set + `work_mem = '1MB'`, []pg.Setting{{Name: "synchronous_commit", Value: "local"}, {Name: "work_mem", Value: "1MB"}}},
		{set + pg.LocalCommit + ` = on`, []pg.Setting{{Name: "work_mem", Value: "1MB"}}},
		{set + `search_path = ` + strings.Repeat("a", 60) + strings.Repeat(", "+strings.Repeat("b", 60), 1200), []pg.Setting{{Name: "work_mem", Value: "1MB"}}},
	} {
		exec(t, conn, c.sql)
		got, err := pg.DatabaseSettings(testContext(t), conn)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v %v, want %v", c.sql, got, err, c.want)
		}
	}
}
