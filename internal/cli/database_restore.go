package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/terminal"
)

const databaseRestoreLong = `Restore one database of a managed instance to a moment, out of the instance's backups, as a
new database on the same instance or on a peer's. Everything else goes on meanwhile: a
temporary server, which nobody else can reach, is restored and recovered to the moment, and
the database is copied out of it.

--at is a moment with or without a zone (the local one without), such as "2026-11-30 10:15:00"
or 2026-11-30T10:15:00Z, or a duration such as -10m. What was committed then or before is in
the new database. Any moment up to now can be had: the log is brought into the repository
first. Of the twin of a link it is a moment of the primary: those transactions are in that
committed on the primary then or before, as far as the twin ever had them. --deleted restores
a database that was dropped, to its last row before the DROP.
twinspan database restorable lists the databases with the moments.

The answer names the position in the instance's log, and when the last transaction before it
ended. Nothing of a link is in the new database. Until it is whole it has a name that begins
with "twinspan copy", and nobody can connect to it; an agent that is killed leaves nothing
once it is started again. Unlogged tables are empty.

With --from the backups are another instance's, which may be gone for good: its repositories
are named by the file that its twinspan backup policy --export wrote, or one of them by its
directory, or its place in an object store as in twinspan backup policy, and a file with its
key. --deleted works there, too: the log says what was dropped. Any agent of a managed
instance can do it that has the programs of the same major version. Where the log ends before
the moment, all of it is restored, and the answer says so.

Interrupting the command cancels the restore; with --no-wait it goes on by itself, --status
shows it, and --cancel ends it.`

func (a *app) databaseRestore() *cobra.Command {
	var in api.RestoreDatabase
	var at, rate, from, keyFile, credentials string
	var status, cancel bool
	cmd := &cobra.Command{
		Use:   "restore DATABASE --as NEW (--at TIME | --deleted)",
		Short: "Restore a database to a moment, under a new name",
		Long:  databaseRestoreLong,
		Example: `  twinspan database restore sales --at "2026-11-30 10:15:00" --as sales_before
  twinspan database restore sales --at -10m --as sales_before --peer b
  twinspan database restore sales --deleted --as sales_back
  twinspan database restore sales --at -1h --as sales --from b-backups.json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeRestorable,
		PreRunE: func(*cobra.Command, []string) (err error) {
			if at != "" {
				moment, err := parseMoment(at, time.Now())
				if err != nil {
					return err
				}
				in.At = &moment
			}
			if from != "" {
				if in.From, err = readRepository(from, keyFile, credentials); err != nil {
					return err
				}
			}
			in.BytesPerSecond, err = parseSize(rate)
			return err
		},
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			in.Database = args[0]
			v, err := a.restoreOf(ctx, c, in, status, cancel)
			if err != nil {
				return err
			}
			return a.tellCopy(v, cancel)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&in.Name, "as", "", "`name` of the new database")
	flags.StringVar(&at, "at", "", "the `time` to which it is restored")
	flags.BoolVar(&in.Deleted, "deleted", false, "restore a dropped database to its last row before the DROP")
	flags.StringVar(&in.Peer, "peer", "", "the `peer` on whose instance it is made")
	flags.StringVar(&from, "from", "",
		"the `repository` of another instance: what backup policy --export wrote, or its place")
	flags.StringVar(&keyFile, "key-file", "",
		"the `file` with the key of the repository that --from names, or what backup policy --export wrote")
	flags.StringVar(&credentials, "credentials", "", "the `file` with what opens an object store that --from names")
	flags.StringVar(&rate, "rate", "", "copy rows no faster than this `size` per second, such as 50MB")
	flags.BoolVar(&status, "status", false, "show the restore under that name that is under way, or the last")
	flags.BoolVar(&cancel, "cancel", false, "end the restore under that name that is under way")
	cmd.MarkFlagsMutuallyExclusive("at", "deleted", "status", "cancel")
	cmd.MarkFlagsOneRequired("at", "deleted", "status", "cancel")
	if err := cmd.MarkFlagRequired("as"); err != nil {
		panic(err) // the flag is there
	}
	a.completeFlag(cmd, "peer", a.completePeers)
	return cmd
}

// restoreOf does what the flags ask for.
func (a *app) restoreOf(ctx context.Context, c *client.Client, in api.RestoreDatabase, status,
	cancel bool) (api.DatabaseCopy, error) {
	if status || cancel {
		return a.copyOf(ctx, c, api.CopyDatabase{Database: in.Database, Name: in.Name, Peer: in.Peer}, status, cancel)
	}
	v, err := c.RestoreDatabase(ctx, in)
	if err != nil || a.flags.noWait {
		return v, err
	}
	return a.waitCopied(ctx, c, v)
}

// readRepository reads what names a repository and opens it.
func readRepository(from, keyFile, credentialsFile string) (*api.RestoreFrom, error) {
	place := from
	if !strings.Contains(from, "://") {
		info, err := os.Stat(from)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			if keyFile != "" || credentialsFile != "" {
				return nil, fmt.Errorf("%s is a file, which holds the key: --key-file and --credentials are for a directory or an object store",
					terminal.Quoted(from))
			}
			return readExport(from)
		}
		if place, err = filepath.Abs(from); err != nil {
			return nil, err
		}
	}
	if keyFile == "" {
		return nil, fmt.Errorf("%s is a repository: --key-file has to name a file with its key", terminal.Quoted(from))
	}
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	out := &api.RestoreFrom{Repository: place, Key: strings.TrimSpace(string(text))}
	if e, err := readExport(keyFile); err == nil {
		out.Key = e.Key
	}
	if credentialsFile != "" {
		out.Credentials, err = readCredentials(credentialsFile)
	}
	return out, err
}

// readExport reads what backup policy --export wrote.
func readExport(file string) (*api.RestoreFrom, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var e api.BackupExport
	if json.Unmarshal(text, &e) != nil || e.Format != 1 || e.Repository == "" || e.Key == "" {
		return nil, fmt.Errorf("%s is not what twinspan backup policy --export writes", terminal.Quoted(file))
	}
	out := &api.RestoreFrom{Repository: e.Repository, Key: e.Key}
	if len(e.Repositories) > 0 { // an earlier release had one directory
		out.Repository, out.Credentials, out.Others = e.Repositories[0].Place, e.Repositories[0].Credentials, e.Repositories[1:]
	}
	return out, nil
}

// parseMoment reads a moment as people write it.
func parseMoment(text string, now time.Time) (time.Time, error) {
	text = strings.TrimSpace(text)
	if d, err := time.ParseDuration(text); err == nil && d <= 0 {
		return now.Add(d).UTC(), nil
	}
	for _, form := range []string{
		time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05Z07", "2006-01-02 15:04:05 Z07:00",
		"2006-01-02 15:04:05 MST",
		"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04",
	} {
		moment, err := time.ParseInLocation(form, text, time.Local)
		if err != nil {
			continue
		}
		if name, offset := moment.Zone(); strings.HasSuffix(form, "MST") && (name != "UTC" || offset != 0) {
			continue // other abbreviations mean several zones
		}
		return moment.UTC(), nil
	}
	return time.Time{}, fmt.Errorf("%q is no moment: write it as '2026-11-30 10:15:00' (local time), 2026-11-30T10:15:00Z, or -10m for ten minutes ago", text)
}

// showRestored prints to where a restored database was brought.
func showRestored(w io.Writer, v api.DatabaseCopy) {
	r := v.Restore
	switch {
	case r.Deleted:
		fmt.Fprintln(w, "  moment        before its DROP")
	case r.At != nil:
		fmt.Fprintf(w, "  moment        %s\n", fine(*r.At))
	}
	if r.From != "" {
		fmt.Fprintf(w, "  repository    %s\n", r.From)
	}
	if r.Backup != "" {
		fmt.Fprintf(w, "  backup        %s\n", r.Backup)
	}
	if r.Position != "" {
		fmt.Fprintf(w, "  position      %s\n", r.Position)
	}
	if v.Link != "" && v.Position != "" {
		fmt.Fprintf(w, "  that is       %s of the primary of link %s\n", v.Position, v.Link)
	}
	if r.PrimaryLast != "" {
		fmt.Fprintf(w, "  last transaction of the primary is applied up to %s\n", r.PrimaryLast)
	}
	switch {
	case r.LastAt != nil:
		fmt.Fprintf(w, "  last transaction before it ended at %s\n", fine(*r.LastAt))
	case r.Reached:
		fmt.Fprintln(w, "  no transaction ended between the backup and the position")
	}
	if r.EndOfLog {
		fmt.Fprintln(w, "  the log in the repository ends before the moment: nothing that was committed later is in it")
	}
}

// fine writes a moment as exactly as it is known.
func fine(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.999999Z07:00") }
