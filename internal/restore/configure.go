package restore

import (
	"context"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

// Files of a restore, beside the server's own.
const (
	fetchScript = "pgbackrest-fetch" // what restore_command calls
	readingFile = "reading"          // the file of the log that was asked for last
)

// settings are those of the temporary server: it recovers, and is read by the agent alone.
func settings(dir string, t Target) map[string]string {
	s := map[string]string{
		// A limit below the source's stops a recovery that is to be read meanwhile, and only that.
		"hot_standby":              "off",
		"restore_command":          "sh " + inCommand(filepath.Join(dir, fetchScript)) + ` %f "%p"`,
		"recovery_target_timeline": "latest",
		"recovery_target_action":   "promote",
		"archive_mode":             "off",
		"wal_level":                "replica",
		"max_wal_senders":          "0",
		// Origins of links, and prepared transactions, come back.
		"max_replication_slots":     "1000",
		"max_prepared_transactions": "1000",
		"max_locks_per_transaction": "256",
		"shared_buffers":            "128MB",
		"max_wal_size":              "1GB",
		// What is lost at a crash is restored again.
		"fsync":              "off",
		"full_page_writes":   "off",
		"synchronous_commit": "off",
		// Nothing but the agent does anything.
		"autovacuum":                      "off",
		"max_logical_replication_workers": "0",
		"max_connections":                 "100",
		"shared_preload_libraries":        "",
		"logging_collector":               "off",
		"log_min_error_statement":         "panic", // statements may hold values
	}
	switch {
	case t.Before != 0:
		s["recovery_target_lsn"], s["recovery_target_inclusive"] = t.Before.String(), "off"
		s["recovery_target_timeline"] = strconv.FormatUint(uint64(t.Timeline), 10)
	case t.through != 0:
		s["recovery_target_lsn"] = t.through.String()
	case t.atOnce:
		s["recovery_target"] = "immediate"
	case !t.Time.IsZero():
		s["recovery_target_time"] = t.Time.UTC().Format("2006-01-02 15:04:05.000000") + "+00"
	}
	return s
}

// inCommand quotes a word for sh in a setting in which the server replaces what follows a percent sign.
func inCommand(word string) string { return strings.ReplaceAll(shell(word), "%", "%%") }

func shell(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// configure replaces the configuration that the backup holds: nothing of it is used.
func (r *Restore) configure(ctx context.Context, t Target) error {
	s := r.server
	version, err := os.ReadFile(filepath.Join(s.DataDir(), "PG_VERSION"))
	if err != nil {
		return problem.Wrap(err, problem.Internal, "restore_failed", "the restored directory cannot be read").
			On(s.DataDir()).
			WithHint("look at what the operating system says about the directory")
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(version)))
	if err != nil {
		return problem.Wrap(err, problem.Incompatible, "restore_failed",
			"the restored directory's version cannot be read").On(s.DataDir()).
			WithHint("restore another backup")
	}
	if s.Binaries.Major != major {
		if s.Binaries, err = instance.FindBinaries(major); err != nil {
			return err
		}
	}
	s.Settings = settings(s.Dir, t)
	if major >= 17 {
		s.Settings["event_triggers"] = "off"
	}
	if major >= 18 {
		s.Settings["max_active_replication_origins"] = "1000"
	}
	r.widen(ctx)
	fetch, err := r.Repository.Fetch(ctx, s.Dir)
	if err != nil {
		return err
	}
	owner, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err != nil {
		return problem.Wrap(err, problem.Unauthorised, "server_user_missing", "the agent's user has no name").
			WithHint("add it to the system's users")
	}
	script := "#!/bin/sh\n# Written by twinspan; restore_command calls it with a file of the log and its place.\n" +
		`printf '%s\n' "$1" >` + shell(filepath.Join(s.Dir, readingFile)) + "\n" + fetch + "\n" +
		// What is no answer ends the recovery: the server takes other codes for the end of the log.
		"status=$?\n[ $status -le 1 ] || status=200\nexit $status\n"
	data := s.DataDir()
	files := map[string]string{
		filepath.Join(s.Dir, fetchScript):           script,
		filepath.Join(data, "postgresql.conf"):      "include 'twinspan.conf'\n",
		filepath.Join(data, "postgresql.auto.conf"): "",
		filepath.Join(data, "pg_hba.conf"):          "local all " + instance.Superuser + " peer map=twinspan\n",
		filepath.Join(data, "pg_ident.conf"):        `twinspan "` + owner.Username + `" ` + instance.Superuser + "\n",
		filepath.Join(data, "recovery.signal"):      "",
	}
	for path, text := range files {
		if err := s.PutFile(path, []byte(text)); err != nil {
			return err
		}
	}
	for _, name := range []string{"standby.signal", "postmaster.pid"} {
		if err := os.Remove(filepath.Join(s.DataDir(), name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return problem.Wrap(err, problem.Internal, "restore_failed", "a file of the backup cannot be removed").
				On(name).
				WithHint("look at what the operating system says about the directory")
		}
	}
	return nil
}

var controlLimit = regexp.MustCompile(`(?m)^(max_prepared_xacts|max_locks_per_xact) setting: +(\d+)`)

// widen gives the server limits as large as those of the server that was backed up, where the program that tells them
// is there.
func (r *Restore) widen(ctx context.Context) {
	program, err := r.server.Binaries.Find("pg_controldata")
	if err != nil {
		return // the limits are wide
	}
	out, _, err := r.server.Work(ctx, nil, program, "-D", r.server.DataDir())
	if err != nil {
		return
	}
	names := map[string]string{"max_prepared_xacts": "max_prepared_transactions",
		"max_locks_per_xact": "max_locks_per_transaction"}
	for _, m := range controlLimit.FindAllStringSubmatch(string(out), -1) {
		name := names[m[1]]
		own, err1 := strconv.Atoi(r.server.Settings[name])
		source, err2 := strconv.Atoi(m[2])
		if err1 == nil && err2 == nil && source > own {
			r.server.Settings[name] = m[2]
		}
	}
}
