package problem

// memberEntries are the codes of an instance's members.
func memberEntries() []Entry {
	const again = "Nothing; it is tried again by itself."
	return []Entry{
		{"etcd_missing", Blocks, "etcd is missing", "Members agree by it who leads.", "Install etcd 3.5 or newer, or name its directory with TWINSPAN_PG_BIN."},
		{"etcd_too_old", Blocks, "etcd is too old", "3.5 is the oldest that members run.", "Install a newer one, or name its directory with TWINSPAN_PG_BIN."},
		{"invitation_kind", Blocks, "The invitation is for another thing", "One makes a peer, the other a member.", "A token of `member invite` goes to `member join`, one of `peer invite` to `peer join`."},
		{"member_address", Blocks, "It is no address of a member", "", "Give it an address that the other members reach: `--endpoint HOST:PORT`."},
		{"member_address_taken", Blocks, "The address is another member's", "", "Give members of one host different ports: `--endpoint`, `--port`, `--member-ports`."},
		{"member_away", Warns, "A member does not answer", "The instance goes on as long as more than half of its members do.", "See that its agent runs; where its host is gone for good: `twinspan member remove NAME`, and join another."},
		{"member_backup_key", Blocks, "A member has the key of the backups from elsewhere than the others", "Either all have it from the operator, or their agents have made it.", "`--backup-key-file` or `--backup-key-command` of `member join`, where the key is the operator's; neither where it is not."},
		{"member_begins", Warns, "A member does not vote yet", "It has not begun, or has not yet what the others have.", "Start its agent; where it will not come: `twinspan member remove NAME`."},
		{"member_broken", Blocks, "A member's record or keys cannot be read", "", "Restore the agent's directory, or remove the member and join it again."},
		{"member_durability", Blocks, "It is no durability", "", "`strict` or `available`."},
		{"member_etcd_away", Warns, "The etcds of the instance do not answer", "Fewer than half of the members agree: no server may lead, and none takes writes.", "See that more than half of the members run, and that they reach each other."},
		{"member_leaderless", Warns, "No member leads", "The instance takes no writes.", "Another one leads within half a minute, as long as more than half of them run."},
		{"member_leads", Blocks, "The member leads", "It is not removed while it does.", "Stop its agent: another one leads then, and can remove it."},
		{"member_name", Blocks, "It is no name for a member", "", "Lower-case letters, digits, '_' and '-', beginning with a letter, at most 40."},
		{"member_name_taken", Blocks, "The name is another member's", "", "Choose another with `--member`, or remove the other one first."},
		{"member_needed", Blocks, "The member's vote is needed", "Without it too few members would answer, and the instance would stop.", "Bring another member back first."},
		{"member_none", Blocks, "The instance has no members", "It is one server, or a cluster that somebody else runs.", "`twinspan init --managed --tier business-critical` makes an instance with members."},
		{"member_patroni_away", Warns, "Patroni does not answer", "", again},
		{"member_program_ended", Warns, "A program of a member has ended", "It is started again.", "Its log says why."},
		{"member_program_failed", Blocks, "A program of a member cannot be started", "", "See that the server's user may run it."},
		{"member_removed", Blocks, "The member was removed", "The instance goes on without it; its directory is of no use any more.", "`twinspan member join`, in a new directory, makes another member of this host."},
		{"member_shared", Blocks, "What the members share cannot be read or written", "", "See that the agent may write its directory."},
		{"member_behind", Blocks, "A standby does not follow", "No other server is restarted meanwhile.", "`twinspan member list` names it; call `twinspan instance update` again when it follows."},
		{"member_release_unknown", Blocks, "It is not known which release a member runs or has installed", "", "Try again in a few seconds; its agent tells, once it is of this release of twinspan."},
		{"member_update_failed", Blocks, "A member's server was not updated", "The servers before it were.", "Its logs say why; then call `twinspan instance update` again."},
		{"member_stands_by", Informs, "The member stands by", "The agent beside the server that leads works the links; the others take its place when that server is gone.", "Ask the agent of the member that leads: `twinspan member list` names it."},
		{"member_unknown", Blocks, "There is no such member", "", "`twinspan member list`"},
		{"members_alone", Warns, "No standby has what is committed", "Commits go on without one: the loss of the leader loses what it acknowledged alone.", "Bring a member back; its standby is waited for as soon as it follows."},
		{"members_few", Warns, "The instance has fewer than three members", "The loss of one stops it, since half of the members are no majority.", "`twinspan member invite`, and `twinspan member join` on another host."},
		{"members_many", Blocks, "The instance has as many members as it may", "", "Remove one first."},
		{"members_wait", Blocks, "Commits wait for a standby", "None follows, and the durability is strict: nothing is acknowledged that one server alone has.", "Bring a member back, or `twinspan member durability available`."},
		{"patroni_missing", Blocks, "Patroni is missing", "It runs a member's server.", "Install Patroni 4.0 or newer, or name its directory with TWINSPAN_PG_BIN."},
		{"patroni_too_old", Blocks, "Patroni is too old", "4.0 is the oldest that members run.", "Install a newer one, or name its directory with TWINSPAN_PG_BIN."},
	}
}
