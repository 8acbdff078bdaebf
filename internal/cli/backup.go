package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

const backupLong = `The backups of a managed instance, which its agent makes by itself with pgBackRest: a full
one at once and every week, a differential one every day, and the log always. docs/backups.md
is a guide.`

// backupLines writes how the backups stand.
func backupLines(w io.Writer, b api.Backups) {
	last := "unknown: the repository has not answered"
	if b.Known {
		last = "none"
	}
	var newest time.Time
	for _, one := range b.Backups {
		if one.EndedAt.After(newest) {
			newest, last = one.EndedAt, one.Type+", "+clock(&one.EndedAt)
		}
	}
	next := "-"
	if b.Next != nil {
		next = b.Next.Type + ", " + clock(&b.Next.At)
	}
	fmt.Fprintf(w, "last backup  %s\nnext backup  %s\nrestorable   %s to %s\nkept         %d days, in %s\n",
		last, next, clock(b.From), clock(b.Until), b.Policy.RetentionDays, cmp.Or(b.Policy.Repository, "no place yet"))
	if len(b.Repositories) == 1 && b.Repositories[0].Known {
		fmt.Fprintf(w, "tested       %s\n", clock(b.Repositories[0].TestedAt))
	}
	if len(b.Repositories) < 2 {
		return
	}
	for _, r := range b.Repositories {
		state := "ok"
		switch {
		case len(r.Problems) > 0:
			state = r.Problems[0].Code
		case !r.Known:
			state = "has not answered yet"
		}
		missed := ""
		if r.Owed > 0 {
			missed = ", " + terminal.Plural(r.Owed, "file") + " of the log missed"
		}
		fmt.Fprintf(w, "repository %d %s: %s%s, restorable %s to %s, tested %s\n", r.Number, r.Place, state, missed, clock(r.From), clock(r.Until), clock(r.TestedAt))
	}
}

func problemLines(w io.Writer, problems []api.Problem) {
	for _, p := range problems {
		fmt.Fprintf(w, "problem      [%s] %s\n             %s\n", p.Code, p.Title, p.Hint)
	}
}

// clock writes a moment with its zone; "-" for none.
func clock(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05Z07:00")
}

func (a *app) backupCommand() *cobra.Command {
	return group("backup", "agent", "Backups of a managed instance", backupLong, a.backupList(), a.backupNow(), a.backupPolicy(), a.backupVerify(), a.backupTest())
}

func (a *app) backupList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the backups",
		Long: `List the backups in all repositories, and say which is next, to which moments the
instance can be restored, and what is wrong.`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			b, err := c.Backups(ctx)
			if err != nil {
				return err
			}
			return a.answer(b, func(w io.Writer) {
				var rows [][]string
				for _, one := range b.Backups {
					rows = append(rows, []string{one.Label, one.Type, strconv.Itoa(one.Repository), clock(&one.EndedAt), terminal.Size(one.Bytes), terminal.Size(one.Stored)})
				}
				terminal.Table(w, []string{"BACKUP", "TYPE", "REPOSITORY", "COMPLETE", "SIZE", "STORED"}, rows)
				fmt.Fprintln(w)
				backupLines(w, b)
				problemLines(w, b.Problems)
			})
		}),
	}
}

func (a *app) backupNow() *cobra.Command {
	var in api.BackupRequest
	cmd := &cobra.Command{
		Use:   "now [--type full|diff|incr]",
		Short: "Make a backup now",
		Long: `Make a backup now, in each repository, and wait until all are complete; with --no-wait,
return at once. One that is under way is waited for first. It is incremental unless --type
says otherwise. A repository that fails is named, and does not stop the others.`,
		Example: `  twinspan backup now --type full`,
		Args:    cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			if t := in.Type; t != "full" && t != "diff" && t != "incr" {
				return problem.New(problem.Invalid, "backup_type_invalid", "there is no backup of type %q", t).WithHint("use full, diff or incr")
			}
			t, err := c.BackupNow(ctx, in)
			if err == nil {
				t, err = a.await(ctx, c, t)
			}
			if err != nil {
				return err
			}
			return a.answer(t, func(w io.Writer) {
				fmt.Fprintf(w, "backup       %s, %s\n", t.Type, t.State)
				partLines(w, t)
			})
		}),
	}
	cmd.Flags().StringVar(&in.Type, "type", "incr", "`type` of the backup: full, diff or incr")
	return cmd
}

// partLines writes how a task stands in each of several repositories.
func partLines(w io.Writer, t api.BackupTask) {
	for _, p := range t.Parts {
		fmt.Fprintf(w, "repository %d %s: %s", p.Number, p.Place, p.State)
		if p.Error != nil {
			fmt.Fprintf(w, " [%s] %s", p.Error.Code, p.Error.Text)
		}
		if p.Verified != nil {
			fmt.Fprintf(w, ", %s damaged", terminal.Plural(len(p.Verified.Findings), "place"))
		}
		fmt.Fprintln(w)
	}
}

// taskPoll is how often a task is looked at.
const taskPoll = time.Second

// await waits until a task has ended, and fails with its error. Where the agent is away for a moment, as at a restart, the
// task is gone with it.
func (a *app) await(ctx context.Context, c *client.Client, t api.BackupTask) (api.BackupTask, error) {
	for !a.flags.noWait && t.EndedAt == nil {
		select {
		case <-ctx.Done():
			a.say("The agent goes on with it; twinspan backup list shows when it has ended.")
			return t, ctx.Err()
		case <-time.After(min(taskPoll, a.deps.Poll)):
		}
		var err error
		if t, err = c.BackupTask(ctx, t.Number); err != nil {
			return t, err
		}
	}
	if t.Error != nil {
		for _, p := range t.Parts {
			if p.Error == nil {
				a.say("In %s it is %s.", p.Place, p.State)
			} else {
				a.say("In %s it failed: [%s] %s", p.Place, p.Error.Code, p.Error.Text)
			}
		}
		return t, t.Error
	}
	return t, nil
}

func (a *app) backupVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Read all backups and compare checksums",
		Long: `Read everything in all repositories, compare it with its checksums, and look for log that
is missing. It fails when anything is damaged. The agent does it by itself once a week.`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			t, err := c.VerifyBackups(ctx)
			if err == nil {
				t, err = a.await(ctx, c, t)
			}
			if err != nil {
				return err
			}
			err = a.answer(t, func(w io.Writer) {
				if t.Verified == nil {
					fmt.Fprintf(w, "verification %s\n", t.State)
					return
				}
				fmt.Fprintf(w, "backups      %d\nsegments     %d\ndamaged      %d\n", t.Verified.Backups, t.Verified.Segments, len(t.Verified.Findings))
				partLines(w, t)
				for _, f := range t.Verified.Findings {
					fmt.Fprintln(w, "             "+strings.TrimSpace(f.Backup+" "+f.Text))
				}
			})
			if err == nil && t.Verified != nil && len(t.Verified.Findings) > 0 {
				return problem.New(problem.Diverged, "backup_damaged", "the backups are damaged in %d places", len(t.Verified.Findings)).
					WithHint("make a full backup now (twinspan backup now --type full), and look at the disk of the repository")
			}
			return err
		}),
	}
}

func (a *app) backupTest() *cobra.Command {
	return &cobra.Command{
		Use:   "test",
		Short: "Restore the newest backup for a test",
		Long: `Restore the newest backup of each repository on a temporary server that nobody else can
reach, recover it to the end of the log, read every row of every database, and remove it.
It takes the room of the instance beside the agent's directory meanwhile. The agent does it
by itself once a week.`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			t, err := c.TestBackups(ctx)
			if err == nil {
				t, err = a.await(ctx, c, t)
			}
			if err != nil {
				return err
			}
			return a.answer(t, func(w io.Writer) {
				if r := t.Tested; r != nil {
					fmt.Fprintf(w, "backup       %s\nrecovered    %s\ndatabases    %d\ntables       %d\nrows         %d\n", r.Backup, clock(&r.Until), r.Databases, r.Tables, r.Rows)
				} else {
					fmt.Fprintf(w, "test         %s\n", t.State)
				}
				partLines(w, t)
			})
		}),
	}
}

const backupPolicyLong = `Show which backups are kept, and where, or change it. Every moment of the last N days
stays restorable (1 to 35, 7 unless it is changed); a shorter retention removes backups.

A repository is a directory with its full path, or a path in an object store:

  s3://BUCKET/PATH?endpoint=HOST&region=REGION   also uri-style=path|host, ca-file=FILE
  azure://CONTAINER/PATH?account=ACCOUNT         also endpoint, uri-style, ca-file
  gcs://BUCKET/PATH                              also endpoint, ca-file

What opens an object store is read from the file that --credentials names, never from the
command line: lines NAME = VALUE with key and secret (and token for temporary ones) for S3,
key or sas for Azure, token for GCS; or, for GCS, the JSON file of a service account. Bucket
or container have to exist.

--repository names the one repository; --add-repository adds another (up to 4), or changes
the credentials of one; --remove-repository leaves one out. In a repository that is new the
agent begins with a full backup. What is in one that is left out stays there, and is not used
any more. All are encrypted with one key. One that fails stops no other: the log that it
misses is brought to it later, out of another.

--export writes a new file with all that a restore elsewhere needs beside the repositories:
their places, their credentials and their key. Keep a copy away from this machine: without
the key the backups cannot be read.`

func (a *app) backupPolicy() *cobra.Command {
	var days int
	var repository, add, remove, credentials, export string
	cmd := &cobra.Command{
		Use:   "policy [--retention-days N] [--repository PLACE] [--export FILE]",
		Short: "Show or change which backups are kept, and where",
		Long:  backupPolicyLong,
		Example: `  twinspan backup policy --retention-days 14
  twinspan backup policy --repository /mnt/backups/b
  twinspan backup policy --add-repository gcs://backups/b --credentials service-account.json
  twinspan backup policy --export instance-b.json`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
		var in api.SetBackupPolicy
		set := false
		given := func(name string) bool {
			changed := cmd.Flags().Changed(name)
			set = set || changed
			return changed
		}
		if given("retention-days") {
			in.RetentionDays = &days
		}
		if given("repository") {
			in.Repository = &repository
		}
		if given("add-repository") {
			in.Add = &add
		}
		if given("remove-repository") {
			in.Remove = &remove
		}
		var p api.BackupPolicy
		var err error
		if given("credentials") {
			if in.Credentials, err = readCredentials(credentials); err != nil {
				return err
			}
		}
		if set {
			p, err = c.SetBackupPolicy(ctx, in)
		} else {
			p, err = c.BackupPolicy(ctx)
		}
		if err == nil && export != "" {
			err = a.exportBackups(ctx, c, export)
		}
		if err != nil {
			return err
		}
		return a.answer(p, func(w io.Writer) {
			fmt.Fprintf(w, "kept         %d days\n", p.RetentionDays)
			for _, r := range p.Repositories {
				fmt.Fprintf(w, "repository   %s\n", r.Place)
			}
		})
	})
	flags := cmd.Flags()
	flags.IntVar(&days, "retention-days", 0, "how many `days` back every moment can be restored")
	flags.StringVar(&repository, "repository", "", "`place` of the one repository: a directory with its full path, or an object store")
	flags.StringVar(&add, "add-repository", "", "`place` of one more repository")
	flags.StringVar(&remove, "remove-repository", "", "`place` of a repository that is used no more")
	flags.StringVar(&credentials, "credentials", "", "`file` with what opens the object store")
	flags.StringVar(&export, "export", "", "new `file` for what a restore elsewhere needs, the key included")
	cmd.MarkFlagsMutuallyExclusive("repository", "add-repository")
	cmd.MarkFlagsMutuallyExclusive("repository", "remove-repository")
	return cmd
}

// readCredentials reads what opens an object store: lines NAME = VALUE, or the JSON of a service account.
func readCredentials(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(strings.TrimSpace(string(text)), "{") {
		if !json.Valid(text) {
			return nil, fmt.Errorf("%s is not the JSON of a service account", terminal.Quoted(file))
		}
		return map[string]string{"service": string(text)}, nil
	}
	credentials := map[string]string{}
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("line %d of %s is not NAME = VALUE", n+1, terminal.Quoted(file)) // the line may be a secret
		}
		credentials[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return credentials, nil
}

func (a *app) exportBackups(ctx context.Context, c *client.Client, file string) error {
	e, err := c.ExportBackups(ctx)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return problem.Wrap(err, problem.Internal, "internal", "write the file")
	}
	err = config.WriteNew(file, append(text, '\n'))
	if problem.CodeOf(err) == "already_initialised" {
		return problem.New(problem.Conflict, "file_exists", "%s exists", file).On(file).WithHint("name a file that is not there yet")
	}
	if err == nil {
		a.say("%s holds the key of the backups: keep it where nobody else reads it, and not on this machine alone.", terminal.Quoted(file))
	}
	return err
}

func (a *app) databaseRestorable() *cobra.Command {
	return &cobra.Command{
		Use:   "restorable",
		Short: "List the databases that can be restored",
		Long: `List the databases of a managed instance with the moments to which each can be restored.
Those that were dropped are among them as long as a backup holds them.`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			all, err := c.RestorableDatabases(ctx)
			if err != nil {
				return err
			}
			return a.answer(all, func(w io.Writer) {
				var rows [][]string
				for _, d := range all {
					rows = append(rows, []string{d.Name, clock(d.From), clock(d.Until), clock(d.DroppedBy)})
				}
				terminal.Table(w, []string{"NAME", "FROM", "UNTIL", "DROPPED"}, rows)
			})
		}),
	}
}
