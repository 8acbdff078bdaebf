package gate

import (
	"fmt"
	"strings"
)

// DDL is the relation of a ticket for a command that changes the schema.
const DDL uint32 = 0

// TicketSQL is one statement that lets the transaction pass the gate once for each of
// the relations, by OID, and for one command that changes the schema for each DDL among
// them. It is for sessions in replica role that run the code of users, and do not have
// the pass: the gate takes a ticket when a statement on its relation begins, so that
// what the statement calls has none. An INSERT with ON CONFLICT DO UPDATE needs two.
// A ticket ends with its transaction. Run it with the agent's rights.
func TicketSQL(relations ...uint32) string {
	values := make([]string, len(relations))
	for i, r := range relations {
		values[i] = fmt.Sprintf("(pg_catalog.pg_backend_pid(), pg_catalog.txid_current(), %d::pg_catalog.oid)", r)
	}
	return `INSERT INTO twinspan.gate_ticket (pid, xid, relation) VALUES ` + strings.Join(values, ", ")
}
