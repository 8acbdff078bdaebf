package pg

import (
	"strconv"
	"strings"
)

// PassGate is the setting that tells the sessions of agents from others in replica
// role, which the gate does not let write. It counts only together with that role,
// which a superuser alone can take, and not while passSetting says otherwise.
const PassGate = "twinspan.pass_gate"

// passSetting says what a session in which code of users runs may write (Session.Fenced).
// PassGate cannot: that code could set it. This is a setting of the server's own that only
// superusers can set, from version 13 on, and that has no other meaning with these values:
// functions of the server with such names, for which it would log where an error arises, do not
// exist (elog.c, matches_backtrace_functions). RESET ALL, which that code may run, brings back what
// the session began with, so that is noPass.
const (
	passSetting = "backtrace_functions"
	noPass      = "twinspan_none"
	fullPass    = "twinspan_pass"
	ticket      = "twinspan_ticket"
)

// FullPass is what a fenced session may do while no code of users runs in it, and Ticket
// what one of them may do while it does: one statement for each of the relations. See TakeSQL.
const FullPass = fullPass

// Ticket lets one statement on each of the relations pass, by OID, and for each 0 one command that changes the
// schema. The gate takes it away when the statement begins, so what that calls has none.
func Ticket(relations ...uint32) string {
	var b strings.Builder
	b.WriteString(ticket)
	for _, r := range relations {
		b.WriteString("_" + strconv.FormatUint(uint64(r), 10))
	}
	return b.String()
}

// TicketOf is Ticket as an SQL expression, for expressions that give OIDs.
func TicketOf(relations ...string) string {
	if len(relations) == 0 {
		return "'" + ticket + "'"
	}
	return "pg_catalog.concat_ws('_', '" + ticket + "', " + strings.Join(relations, ", ") + ")"
}

// TakeSQL is an SQL expression that gives the session the pass or the tickets that another
// one says, until they are spent or SettleSQL runs behind RESET ALL. Servers that do not know
// the setting have no fenced sessions on a secondary.
func TakeSQL(pass string) string {
	return "CASE WHEN pg_catalog.current_setting('" + passSetting + "', true) IS NOT NULL THEN pg_catalog.set_config('" + passSetting + "', " + pass + ", false) END"
}
