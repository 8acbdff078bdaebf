package assess

import (
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
)

func thing(name, value, detail string) []Thing { return []Thing{{name, value, detail}} }

func listed(list []api.UncarriedObject) string {
	var all []string
	for _, o := range list {
		all = append(all, o.Kind+" "+o.Name)
	}
	return strings.Join(all, ", ")
}

// Of each kind, what is there and not here is named, and not once it is here.
func TestWhatIsLackingIsListed(t *testing.T) {
	all := Inventory{
		Subscriptions: thing("feed", "", "of p, disabled"), Publications: thing("news", "", ""), LogicalSlots: thing("cdc", "pgoutput", "in use"),
		PhysicalSlots: thing("standby", "", "not in use"), Jobs: thing("nightly", "pgagent", ""), Servers: thing("far", "", "postgres_fdw"), Mappings: thing("far for shop", "", ""),
		Roles: thing("shop", "password", ""), Prepared: thing("gid", "", "of role shop"), Settings: thing("work_mem", "8192 x kB", "changed"), DatabaseSettings: thing("app.key", "", ""),
	}
	here := Inventory{Settings: thing("work_mem", "4096 x kB", "")}
	want := "subscription feed, publication news, logical_slot cdc, physical_slot standby, job nightly, foreign_server far, user_mapping far for shop, role shop, prepared_transaction gid, setting work_mem, database_setting app.key"
	list := Uncarried(all, here)
	if got := listed(list); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, o := range list {
		if o.Text == "" || o.Remedy == "" {
			t.Errorf("%+v", o)
		}
	}
	if got := listed(Uncarried(all, all)); got != "" {
		t.Errorf("of what is here: %s", got)
	}
	if got := listed(Uncarried(here, all)); got != "setting work_mem" {
		t.Errorf("of what is here alone: %s", got)
	}
}

func TestWhatIsThereAndIsOtherwise(t *testing.T) {
	for name, c := range map[string]struct {
		there, here Inventory
		want        string
	}{
		"another plugin":          {Inventory{LogicalSlots: thing("s", "pgoutput", "")}, Inventory{LogicalSlots: thing("s", "wal2json", "")}, "logical_slot s"},
		"job of no scheduler":     {Inventory{Jobs: thing("j", "pg_cron", "")}, Inventory{Jobs: thing("j", "pg_cron", "")}, "job j"},
		"job of a scheduler":      {Inventory{Jobs: thing("j", "pg_cron", "")}, Inventory{Jobs: thing("j", "pg_cron", ""), Scheduler: true}, ""},
		"role without a password": {Inventory{Roles: thing("r", "password", "")}, Inventory{Roles: thing("r", "", "")}, "role r"},
		"role without both":       {Inventory{Roles: thing("r", "", "")}, Inventory{Roles: thing("r", "", "")}, ""},
		"setting of both":         {Inventory{Settings: thing("s", "1", "changed")}, Inventory{Settings: thing("s", "1", "changed")}, ""},
		"setting changed here":    {Inventory{Settings: thing("s", "1", "")}, Inventory{Settings: thing("s", "2", "changed")}, "setting s"},
		"default of a version":    {Inventory{Settings: thing("s", "1", "")}, Inventory{Settings: thing("s", "2", "")}, ""},
		"setting of a version":    {Inventory{Settings: thing("s", "1", "changed")}, Inventory{}, ""},
		"setting of the database": {Inventory{DatabaseSettings: thing("work_mem of role r", "8MB", "")}, Inventory{DatabaseSettings: thing("work_mem of role r", "4MB", "")}, "database_setting work_mem of role r"},
		"name with quotes":        {Inventory{Publications: thing(`a"b`, "", "")}, Inventory{}, `publication a"b`},
	} {
		list := Uncarried(c.there, c.here)
		if got := listed(list); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		if name == "name with quotes" && !strings.Contains(list[0].Remedy, `"a""b"`) {
			t.Errorf("%+v", list[0])
		}
	}
}
