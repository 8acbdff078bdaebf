package problem

// instanceEntries are the codes of a managed instance's size, storage and usage.
func instanceEntries() []Entry {
	const more = "Remove data or log that nobody needs, or give the instance more: `twinspan instance set --storage`."
	return []Entry{
		{"benefit_unknown", Blocks, "There is no such benefit", "", "none or passive-dr."},
		{"instance_change_undone", Blocks, "The server did not start with the new size", "The size of before was brought back, and the server runs.", "Choose a size that the machine has; the log of the server says more."},
		{"instance_exceeds_machine", Warns, "The instance is declared to be larger than its machine", "The settings of the server follow from what the machine has. Usage counts what was declared.", "Declare what there is: `twinspan instance set`."},
		{"instance_not_managed", Blocks, "The agent does not run this instance", "Somebody else does, so it has no tier, size and usage here.", "`twinspan init --managed` makes one that has."},
		{"instance_restart_pending", Informs, "Settings wait for a restart", "The instance was given another size, and PostgreSQL takes some settings at a start alone.", "`twinspan instance set --restart`, when sessions may end."},
		{"instance_setting_overridden", Informs, "Settings do not follow from the size", "Somebody has set them otherwise, as with ALTER SYSTEM, which has the final word.", "ALTER SYSTEM RESET, unless it is meant."},
		{"instance_size_broken", Blocks, "The size of the instance cannot be read", "It lies in instance.json in the agent's directory.", "Mend the file, or remove it and set the size anew."},
		{"instance_size_invalid", Blocks, "It is no size of an instance", "", "1 to 1024 vCores, 1 GB to 64 TB of memory, 256 MB to 1 PB of storage; memory together with vCores."},
		{"instance_update_pending", Informs, "A newer minor release is installed", "The server runs what it was started with.", "`twinspan instance update`, when sessions may end; members are restarted one after the other."},
		{"instance_update_failed", Blocks, "The server was not updated", "It was restarted, or could not be asked what it runs.", "Its log says why."},
		{"binaries_changed", Warns, "The server's programs are of another major version", "The server runs on, and cannot be started once it has ended.", "Install the major version of its data there again."},
		{"limits_unenforced", Informs, "The kernel does not hold the server to its size", "That takes a control group (cgroup v2) of the agent's own. The settings of the server follow from its size all the same.", "Run the agent as a service of systemd with Delegate=cpu memory, as docs/instance.md says."},
		{"server_restart_slow", Warns, "The server is not back yet", "It was restarted, and has not accepted sessions for three minutes: recovery may take that long.", "Look at its log; the agent goes on trying."},
		{"storage_below_use", Blocks, "The instance takes more than that", "", "Give it more, or remove data first."},
		{"storage_exceeds_disk", Warns, "The file system is smaller than the storage declared", "What the file system has is the limit.", "Make it larger, or declare what there is."},
		{"storage_filling", Warns, "Storage is used up within a day", "As it has grown lately. A forecast looks ahead four times as far as it looks back.", more},
		{"storage_full", Blocks, "Storage is used up", "Writes are not stopped. Where the disk itself is full, the server stops when it can write no log.", more},
		{"storage_full_soon", Blocks, "Storage is used up within two hours", "As it has grown lately.", more},
		{"storage_short", Warns, "Storage has less than a tenth left", "", more},
		{"storage_unmeasured", Warns, "What the instance takes on disk is not known", "", "Run the agent as the user that made the instance."},
		{"usage_log_unreadable", Warns, "The server's log cannot be read", "So it is not known who worked on the instance.", "Run the agent as the user that made the instance."},
		{"usage_unlogged", Warns, "Sessions are not logged", "The instance is declared to be passive, and somebody may have worked on it unseen: the hour is unknown, and counted in full.", "RESET log_connections, log_destination and log_timezone, of the server, of roles and of databases."},
		{"usage_unseen", Warns, "Usage is not counted now", "An hour of which more than two minutes are not seen is unknown.", "Nothing, where the server is away for a moment; the text has the reason."},
		{"month_invalid", Blocks, "There is no such month", "", "Write it as 2026-11."},
		{"tier_unavailable", Blocks, "An instance of one server stays one", "Its tier is chosen when it is made.", "`twinspan init --managed --tier business-critical` makes another one; links move the databases there."},
		{"instance_has_members", Blocks, "An instance of several members has no size", "Its servers share their machines, and hours are not counted.", "Nothing; docs/members.md says what can be set."},
		{"tier_unknown", Blocks, "There is no such tier", "", "general-purpose"},
	}
}
