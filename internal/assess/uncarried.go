package assess

import (
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Uncarried lists what one side lacks of what the other has, or had: what somebody has to
// set up again where it becomes, or has become, the primary.
func Uncarried(there, here Inventory) []api.UncarriedObject {
	list := []api.UncarriedObject{}
	add := func(kind, name, text, remedy string) {
		list = append(list, api.UncarriedObject{Kind: kind, Name: name, Text: text, Remedy: remedy})
	}
	for _, t := range lacking(there.Subscriptions, here.Subscriptions) {
		add("subscription", t.Name, "the subscription "+t.Detail+" is on the other side alone: after a change of places it would go on writing there, or stand still",
			"disable it on the old primary, then CREATE SUBSCRIPTION "+sqlname.Quote(t.Name)+" on the new one, with copy_data = false where the rows are there, and see what was sent in between")
	}
	for _, t := range lacking(there.Publications, here.Publications) {
		add("publication", t.Name, "the publication is on the other side alone: who subscribes to it does not follow the primary",
			"CREATE PUBLICATION "+sqlname.Quote(t.Name)+" on the new primary, and have its subscribers connect there")
	}
	for _, t := range lacking(there.LogicalSlots, here.LogicalSlots) {
		add("logical_slot", t.Name, fmt.Sprintf("a consumer reads changes by this slot (plugin %s, %s), whose position means nothing in another server's log", t.Value, t.Detail),
			"have the consumer make a slot on the new primary and begin anew with a snapshot; drop the old one, which keeps log")
	}
	for _, t := range lacking(there.PhysicalSlots, here.PhysicalSlots) {
		add("physical_slot", t.Name, "a standby or a receiver of log uses this slot ("+t.Detail+"): it follows the other server, not the primary",
			"where the new primary is to have a standby or an archive of its log, make them for it; drop what nobody uses")
	}
	for _, t := range lacking(there.Jobs, here.Jobs) {
		add("job", t.Name, jobText(t)+" is kept on the other side alone", "make the job on the new primary, and end it on the other side")
	}
	for _, t := range there.Jobs {
		if t.Value == "pg_cron" && !here.Scheduler && has(here.Jobs, t) {
			add("job", t.Name, jobText(t)+" is there, but the server does not run pg_cron", "put pg_cron into shared_preload_libraries of the new primary, with cron.database_name, and restart it")
		}
	}
	for _, t := range lacking(there.Servers, here.Servers) {
		add("foreign_server", t.Name, "the foreign server ("+t.Detail+") is on the other side alone", "CREATE SERVER "+sqlname.Quote(t.Name)+" with an address that the new primary reaches")
	}
	for _, t := range lacking(there.Mappings, here.Mappings) {
		add("user_mapping", t.Name, "the user mapping is on the other side alone", "CREATE USER MAPPING on the new primary, with its password")
	}
	for _, t := range there.Roles {
		switch i := find(here.Roles, t.Name); {
		case i < 0:
			add("role", t.Name, "the role logs in on the other side, and is missing or may not log in here", "twinspan link roles NAME --apply; or create it")
		case t.Value != "" && here.Roles[i].Value == "":
			add("role", t.Name, "the role has a password on the other side and none here", "at the primary's agent: twinspan link roles NAME --apply --with-passwords; or ALTER ROLE "+sqlname.Quote(t.Name)+" PASSWORD here")
		}
	}
	for _, t := range lacking(there.Prepared, here.Prepared) {
		add("prepared_transaction", t.Name, "a transaction "+t.Detail+" is prepared there; its changes cross when it is committed, and are lost with a forced failover before",
			"COMMIT PREPARED or ROLLBACK PREPARED on the primary before the failover; afterwards see with its transaction manager what became of it")
	}
	for _, t := range there.Settings {
		i := find(here.Settings, t.Name)
		if i < 0 || here.Settings[i].Value == t.Value || t.Detail == "" && here.Settings[i].Detail == "" {
			continue
		}
		add("setting", t.Name, fmt.Sprintf("the setting of the server is %s there, %s here", shown(t.Value), shown(here.Settings[i].Value)), "ALTER SYSTEM SET "+t.Name+" on the new primary, where it is to be as before")
	}
	for _, t := range there.DatabaseSettings {
		switch i := find(here.DatabaseSettings, t.Name); {
		case i < 0:
			add("database_setting", t.Name, "the setting of the database is made on the other side alone", "ALTER DATABASE ... SET, or ALTER ROLE ... IN DATABASE ... SET, on the new primary")
		case here.DatabaseSettings[i].Value != t.Value:
			add("database_setting", t.Name, fmt.Sprintf("the setting of the database is %s there, %s here", shown(t.Value), shown(here.DatabaseSettings[i].Value)),
				"ALTER DATABASE ... SET, or ALTER ROLE ... IN DATABASE ... SET, on the new primary, where it is to be as before")
		}
	}
	return list
}

func jobText(t Thing) string {
	text := "the job of " + t.Value
	if t.Detail != "" {
		text += " (" + t.Detail + ")"
	}
	return text
}

// shown is a value for people.
func shown(value string) string {
	if value == "" {
		return "empty"
	}
	return strings.ReplaceAll(value, " x ", " × ")
}

func find(list []Thing, name string) int {
	for i, t := range list {
		if t.Name == name {
			return i
		}
	}
	return -1
}

// has says whether an object of a name and a value is in a list: slots are told apart by
// their plugin, jobs by their scheduler.
func has(list []Thing, t Thing) bool {
	for _, other := range list {
		if other.Name == t.Name && other.Value == t.Value {
			return true
		}
	}
	return false
}

func lacking(there, here []Thing) (list []Thing) {
	for _, t := range there {
		if !has(here, t) {
			list = append(list, t)
		}
	}
	return list
}
