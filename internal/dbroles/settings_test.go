package dbroles

import (
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/pg"
)

func TestSettingsOfDatabasesAreCompared(t *testing.T) {
	there := []pg.Setting{{Name: "DateStyle", Value: "SQL, DMY"}, {Name: "xmlbinary", Value: "hex"}, {Role: "we\"ird", Name: "TimeZone", Value: "Asia/Kathmandu"}, {Name: "my.key", Value: "hunter2"},
		{Name: "search_path", Value: `""`}}
	here := []pg.Setting{{Name: "datestyle", Value: "SQL, DMY"}, {Name: "search_path", Value: `""`}, {Name: "bytea_output", Value: "escape"}}
	known := func(name string) bool { return name != "xmlbinary" }
	for name, want := range map[string]bool{"DateStyle": true, "my.key": true, "work_mem": false, "statement_timeout": false, "twinspan.pass_gate": false} {
		if computes(name) != want {
			t.Errorf("values depend on %s: %v", name, !want)
		}
	}
	var got []string
	list := differentSettings(there, here, known)
	for _, d := range list {
		got = append(got, d.remedy("d b"))
	}
	want := []string{
		`ALTER DATABASE "d b" RESET "bytea_output"`,
		`ALTER DATABASE "d b" SET "my"."key" TO ... (as on the primary)`,
		`ALTER ROLE "we""ird" IN DATABASE "d b" SET "TimeZone" TO 'Asia/Kathmandu'`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", got)
	}
	if p := settingsProblem(list, "sales", "d b"); p.Subject != "bytea_output" || !strings.Contains(p.Text, "2 other settings") || strings.Contains(p.Hint, "hunter2") {
		t.Errorf("%+v", p)
	}
	if p := settingsProblem(differentSettings(there[:1], here[:1], known), "sales", "d b"); p != nil {
		t.Errorf("%+v", p)
	}
}
