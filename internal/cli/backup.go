package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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

func (a *app) instanceCommand() *cobra.Command {
	show := &cobra.Command{
		Use:   "show",
		Short: "Show the instance",
		Long:  `Show the instance beside the agent: its server and, of a managed one, its backups.`,
		Args:  cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			i, err := c.Instance(ctx)
			if err != nil {
				return err
			}
			return a.answer(i, func(w io.Writer) {
				managed := "no"
				if i.Postgres.Managed {
					managed = "yes"
				}
				fmt.Fprintf(w, "agent        %s\nmanaged      %s\nversion      %s\nserver       %s\n", i.Agent, managed, dash(i.Postgres.Version), i.Postgres.DSN)
				if i.Backups != nil {
					backupLines(w, *i.Backups)
				}
				problemLines(w, i.Problems)
			})
		}),
	}
	return group("instance", "agent", "Look at the instance", `The instance beside the agent.`, show)
}

// backupLines writes how the backups stand.
func backupLines(w io.Writer, b api.Backups) {
	last := "unknown: the repository has not answered"
	if b.Known {
		last = "none"
	}
	if n := len(b.Backups); n > 0 {
		last = b.Backups[n-1].Type + ", " + clock(&b.Backups[n-1].EndedAt)
	}
	next := "-"
	if b.Next != nil {
		next = b.Next.Type + ", " + clock(&b.Next.At)
	}
	fmt.Fprintf(w, "last backup  %s\nnext backup  %s\nrestorable   %s to %s\nkept         %d days, in %s\n",
		last, next, clock(b.From), clock(b.Until), b.Policy.RetentionDays, b.Policy.Repository)
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
	return group("backup", "agent", "Backups of a managed instance", backupLong, a.backupList(), a.backupNow(), a.backupPolicy(), a.backupVerify())
}

func (a *app) backupList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the backups",
		Long: `List the backups in the repository, and say which is next, to which moments the
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
					rows = append(rows, []string{one.Label, one.Type, clock(&one.EndedAt), terminal.Size(one.Bytes), terminal.Size(one.Stored)})
				}
				terminal.Table(w, []string{"BACKUP", "TYPE", "COMPLETE", "SIZE", "STORED"}, rows)
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
		Long: `Make a backup now and wait until it is complete; with --no-wait, return at once. One
that is under way is waited for first. It is incremental unless --type says otherwise.`,
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
			return a.answer(t, func(w io.Writer) { fmt.Fprintf(w, "backup       %s, %s\n", t.Type, t.State) })
		}),
	}
	cmd.Flags().StringVar(&in.Type, "type", "incr", "`type` of the backup: full, diff or incr")
	return cmd
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
		return t, t.Error
	}
	return t, nil
}

func (a *app) backupVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Read all backups and compare checksums",
		Long: `Read everything in the repository, compare it with its checksums, and look for log that
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

func (a *app) backupPolicy() *cobra.Command {
	var days int
	var repository, export string
	cmd := &cobra.Command{
		Use:   "policy [--retention-days N] [--repository DIR] [--export FILE]",
		Short: "Show or change which backups are kept, and where",
		Long: `Show which backups are kept, and where, or change it. Every moment of the last N days
stays restorable (1 to 35, 7 unless it is changed); a shorter retention removes backups.

With another --repository the agent begins anew there with a full backup. What is in the
one of before stays there, and is not used any more.

--export writes a new file with all that a restore elsewhere needs beside the repository:
its place and its key. Keep a copy away from this machine: without the key the backups
cannot be read.`,
		Example: `  twinspan backup policy --retention-days 14
  twinspan backup policy --export instance-b.json`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
		var in api.SetBackupPolicy
		if cmd.Flags().Changed("retention-days") {
			in.RetentionDays = &days
		}
		if cmd.Flags().Changed("repository") {
			in.Repository = &repository
		}
		var p api.BackupPolicy
		var err error
		if in != (api.SetBackupPolicy{}) {
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
			fmt.Fprintf(w, "kept         %d days\nrepository   %s\n", p.RetentionDays, p.Repository)
		})
	})
	flags := cmd.Flags()
	flags.IntVar(&days, "retention-days", 0, "how many `days` back every moment can be restored")
	flags.StringVar(&repository, "repository", "", "`directory` of the repository, with its full path")
	flags.StringVar(&export, "export", "", "new `file` for what a restore elsewhere needs, the key included")
	return cmd
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
