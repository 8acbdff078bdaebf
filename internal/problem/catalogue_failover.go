package problem

func failoverEntries() []Entry {
	const undone = "Everything is as before; try again."
	return []Entry{
		{"barrier_applied", Informs, "Everything is applied", "A failover ends the stream with it; it is never shown.", ""},
		{"barrier_late", Blocks, "The twin did not apply the rest in time", "Writers had to wait for it, so the failover was undone.", "See what slows the twin, then try again."},
		{"data_loss_not_accepted", Blocks, "A forced failover leaves transactions behind", "What the secondary does not have is not in the new primary.", "`--accept-data-loss`, if that is to be."},
		{"drain_failed", Blocks, "Writing transactions did not end", "The failover was undone.", "See what they wait for, then try again."},
		{"epoch_old", Blocks, "The epoch is not beyond the own one", "The news is old and was left alone.", "Nothing."},
		{"failover_cancelled", Informs, "The failover was given up", undone, ""},
		{"failover_forced", Informs, "A forced failover took its place", "", ""},
		{"agent_older", Blocks, "The peer's agent runs an older program", "The two sides change places only when both understand the same. The link goes on replicating.", "Replace the peer's program as well, then try again."},
		{"failover_interrupted", Blocks, "The agent that drove the failover was interrupted", "It is decided or undone when that agent is back.", "`twinspan link show` says which."},
		{"failover_late", Blocks, "The forced failover was not done in time", "Something on this server held it up, such as a lock or a running transaction.", "Try again."},
		{"failover_not_waiting", Blocks, "No failover waits for others", "It has gone on, or is over.", "`twinspan link failover --status`"},
		{"failover_running", Blocks, "A failover is under way", "A link changes places once at a time.", "`twinspan link failover --status`, or `--cancel`."},
		{"failover_unknown", Blocks, "The link has not changed places", "What is known of a failover is kept until the agents are started anew; `link show` has the last one's type and time.", "`twinspan link show`"},
		{"isolation_policy_invalid", Blocks, "The policy is not understood", "A primary that has lost its twin serves on, or fences itself.", "`--on-isolation serve`, `fence`, or `fence=AFTER`."},
		{"not_fenced", Blocks, "This side has nothing to rejoin", "Only a former primary that a forced failover left behind rejoins; it learns of that when the agents meet.", "Try again in a moment; `twinspan link show` on both sides."},
		{"not_parted", Blocks, "There is nothing to rejoin", "The two sides have one history.", "`twinspan link show`"},
		{"not_primary", Blocks, "This side is not the primary", "The two sides have changed places, and the other did not know yet.", "Nothing: it is told."},
		{"others_late", Blocks, "The other links did not come so far in time", "Links that change places together wait for each other; this one gave up, undecided.", "Try again."},
		{"primary_healthy", Blocks, "The primary is there and works", "A planned failover loses nothing.", "`twinspan link failover`; or `--insist`."},
		{"primary_isolated", Blocks, "The primary has lost its twin and refuses writes", "The link's policy says so: the twin may have been made primary meanwhile.", "Bring the twin's agent or the network back; or `twinspan link failover --type forced` on the spot."},
		{"parting_unknown", Blocks, "Nobody knows where the two histories part", "The other side was made primary by force in the middle of a rejoin. What this side has that it lacks cannot be told from the log.", "`twinspan link rejoin NAME --plan`: the databases have to be compared."},
		{"rejoin_begun", Blocks, "The rejoin of this side has begun", "Its database is neither what it was before nor what the other side's is, and is not fit to be a primary.", "Let the rejoin go on; where the other side is lost for good, `--insist`."},
		{"rejoin_not_accepted", Blocks, "The rejoin does more than overwrite rows", "Tables, objects or the whole database have to be replaced on the former primary.", "`twinspan link rejoin NAME --plan` says which; `--accept` lets it."},
		{"rejoin_other_link", Blocks, "Another link has the database, too", "It cannot be emptied and copied anew under that link.", "Delete the other link, and create it again afterwards."},
		{"rejoin_prepared", Blocks, "A transaction is prepared", "It belongs to what is lost, and holds locks on what has to be mended.", "`COMMIT PREPARED` or `ROLLBACK PREPARED`, then rejoin again."},
		{"rejoin_running", Blocks, "The rejoin is under way", "", "`twinspan link watch`"},
		{"secondary_too_old", Blocks, "The primary's server is too old to become a secondary", "A secondary needs PostgreSQL 14 or later.", "`--cutover` removes the link afterwards."},
		{"sequence_missing", Blocks, "The twin lacks a sequence", "Its value cannot be brought over.", "`twinspan link verify --repair`"},
		{"subscription_enabled", Blocks, "A subscription writes past the gate", "The apply process of a subscription is not held by triggers.", "`ALTER SUBSCRIPTION ... DISABLE`"},
		{"transaction_prepared", Blocks, "A prepared transaction is not finished", "It may still be committed, and nothing can end it but a person.", "`COMMIT PREPARED` or `ROLLBACK PREPARED`"},
		{"twin_diverged", Blocks, "The histories of the two sides have parted", "A forced failover left transactions behind on the former primary.", "`twinspan link lost` shows them, `twinspan link rejoin` makes the former primary the twin."},
		{"twin_too_far", Blocks, "The twin is too far behind", "Writers would have to wait too long.", "Lighten the load on the primary, or see what slows the twin."},
	}
}
