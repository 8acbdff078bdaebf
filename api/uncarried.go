package api

import "time"

// Uncarried is what neither PostgreSQL nor the link carries to the other side: somebody has
// to set it up again where the primary is now, or will be.
type Uncarried struct {
	Link  string          `json:"link" doc:"Name of the link"`
	Sides []UncarriedSide `json:"sides" nullable:"false" doc:"What each side lacks of what the other has, or had as the primary: the secondary in any case, the primary once the sides have changed places"`
}

// UncarriedSide is what one side lacks.
type UncarriedSide struct {
	Agent   string            `json:"agent" doc:"The agent beside the side that lacks it"`
	Role    Role              `json:"role" enum:"primary,secondary" doc:"What that side is"`
	From    string            `json:"from" doc:"The agent beside the side that has it, or had it as the primary"`
	AsOf    *time.Time        `json:"asOf" doc:"When that side was looked at; null where it never could be, and then nothing is known"`
	Objects []UncarriedObject `json:"objects" nullable:"false" doc:"What is to be set up, by kind and name"`
	Problem *Problem          `json:"problem" doc:"Why it is not known how this side stands now; null otherwise"`
}

// UncarriedObject is something that is to be set up again.
type UncarriedObject struct {
	Kind   string `json:"kind" enum:"subscription,publication,logical_slot,physical_slot,job,foreign_server,user_mapping,role,prepared_transaction,setting,database_setting" doc:"What sort of object it is"`
	Name   string `json:"name" doc:"Its name"`
	Text   string `json:"text" doc:"What is so, in a sentence"`
	Remedy string `json:"remedy" doc:"What to do"`
}
