package problem

func copyEntries() []Entry {
	return []Entry{
		{"copies_at_limit", Blocks, "Enough copies of databases are under way", "An agent works on eight copies and restores at once: each holds a snapshot or a temporary server, and sessions on both sides.", "Wait until one is over, or end one with `--cancel`; `twinspan database copies` shows them."},
		{"copy_cancelled", Blocks, "The copy of a database was cancelled", "Nothing of it is left.", "Copy again."},
		{"copy_lost", Warns, "The copy of a database is forgotten", "The agent that made it was started anew. An unfinished copy leaves nothing.", "Look whether the database is there; if not, copy again."},
		{"copy_running", Blocks, "A copy of that name is under way", "", "`twinspan database copies` shows it; wait, or choose another name."},
		{"copy_unknown", Blocks, "There is no such copy of a database", "Copies are remembered until the agent is started anew, the last fifty of those that are over.", "`twinspan database copies` lists them."},
		{"database_exists", Blocks, "A database of that name exists", "A copy is a new database; none is overwritten.", "Choose another name, or drop that database."},
		{"database_name_invalid", Blocks, "A copy cannot have that name", "It is empty, longer than 63 bytes, holds a line's end, or begins as the names of unfinished copies do.", "Choose another name."},
		{"position_not_reached", Warns, "The twin did not come to stand between two transactions", "A copy of a twin is made where one transaction of the primary is applied and the next is not begun; a large one takes long.", "`twinspan link show NAME` says what the link is doing; copy again."},
		{"transactions_open", Warns, "Transactions do not end", "The position of a snapshot is known once the transactions that ran before it have ended.", "`pg_stat_activity` shows them by `xact_start`; copy again when they have ended."},
		{"twin_not_whole", Blocks, "The twin is no state of its primary", "Its first copy, or a repair of it, is under way, so that its tables are of several moments.", "Wait until the link replicates, or copy the primary's database."},
	}
}
