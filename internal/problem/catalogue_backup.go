package problem

// backupEntries are the codes of a managed instance's backups and restores.
func backupEntries() []Entry {
	const again = "Nothing; it is tried again by itself."
	return []Entry{
		{"backup_busy", Warns, "A backup is under way", "One thing at a time works in a repository.", "Wait until it has ended; a backup that an earlier agent began ends with it."},
		{"backup_damaged", Blocks, "Backups are damaged", "A verification found files whose checksum is wrong, or log that is missing: what builds on them cannot be restored.", "Make a full backup (`twinspan backup now --type full`), look at the disk of the repository, and verify again."},
		{"backup_dir_unreadable", Blocks, "The directory of the backups cannot be read", "", "Run the agent as the user that made it."},
		{"backup_failed", Blocks, "pgBackRest failed", "The text has its reason.", "Look at its log in `backup/log` of the agent's directory; it is tried again by itself."},
		{"backup_key_lost", Blocks, "The key of the backups is gone", "Nothing can be restored without it, and no other key is made for a repository that exists.", "Put it back from what `twinspan backup policy --export` wrote; without it, begin anew in another repository."},
		{"backup_key_wrong", Blocks, "The key does not open the backups", "It is not the one with which the repository was made.", "Put back the right one, as `twinspan backup policy --export` wrote it."},
		{"backup_list_broken", Blocks, "The list of databases cannot be read", "It says where dropped databases end.", "Mend the file, or remove it."},
		{"backup_log_late", Warns, "The log does not reach the repository in time", "The newest moments cannot be restored yet.", "See that the repository's disk is not overloaded, and that archive_mode and archive_command are those that the agent wrote."},
		{"backup_not_managed", Blocks, "The agent makes no backups of this instance", "It is not a managed one.", "Whoever runs the server backs it up."},
		{"backup_off", Blocks, "Backups are turned off", "twinspan.toml says backups = false.", "Remove that line and restart the agent."},
		{"backup_overdue", Blocks, "There was no backup for too long", "One is more than six hours late, or the first has not come for an hour.", "The other problems of the backups say why; `twinspan backup now` tries at once."},
		{"backup_policy_broken", Blocks, "The policy of backups cannot be read", "", "Mend the file, or remove it to have the default."},
		{"backup_policy_invalid", Blocks, "The policy cannot be kept to", "", "1 to 35 days, and a directory with its full path."},
		{"backup_repository_foreign", Blocks, "The repository is another instance's", "", "Name another repository."},
		{"backup_repository_full", Blocks, "The disk of the backups is full", "No backup is made, and the server keeps its log until that works again.", "Free space, keep backups for fewer days, or name another repository."},
		{"backup_repository_missing", Blocks, "The repository is gone", "It was there, and is not now: a file system that is not mounted, perhaps. No empty one is made in its place by itself.", "Bring it back, or name another repository."},
		{"backup_repository_unwritable", Blocks, "The repository cannot be written", "", "Give its directory to the server's user."},
		{"backup_server_away", Warns, "The server does not answer pgBackRest", "", again},
		{"backup_task_unknown", Blocks, "There is no such backup or verification", "Of those that have ended, the last of each kind is kept, until the agent restarts.", "`twinspan backup list`"},
		{"backup_type_invalid", Blocks, "There is no such type of backup", "", "full, diff or incr."},
		{"pgbackrest_answer", Blocks, "The answer of pgBackRest is not understood", "Its version may be newer than this program.", "Report it with both versions."},
		{"pgbackrest_missing", Blocks, "pgBackRest is missing", "Nothing of the managed instance is backed up. Where it was before, the server keeps its log until pgBackRest is back.", "Install pgBackRest 2.58 or newer (on Debian from apt.postgresql.org), or name its directory with TWINSPAN_PG_BIN; the agent finds it by itself."},
		{"pgbackrest_too_old", Blocks, "pgBackRest is too old", "2.58 is the oldest that is used.", "Install a newer one (on Debian from apt.postgresql.org), or name its directory with TWINSPAN_PG_BIN."},
	}
}
