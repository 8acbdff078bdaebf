package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

const databaseCopyLong = `Make an independent copy of a database, as it is at one position, under a new name: an
ordinary database that accepts writes, on the same instance or on a peer's. The source is a
twin, a primary, or a database without a link; it is read and written meanwhile, and the
twin's link goes on. Nothing of a link is in the copy.

The answer names the position. Of a twin it is the primary's, with the time at which the last
transaction before it committed there; otherwise it is the instance's own. Where the server's
wal_level is not logical and something is written at that moment it is not known exactly, and
the answer says so.

Rows, indexes, large objects, sequences, roles, rights and the database's settings come along;
publications, subscriptions and settings such as default_transaction_read_only do not.
Materialized views are filled anew. Until it is whole the copy has a name that begins with
"twinspan copy", and nobody can connect to it; an agent that is killed drops it when it is
started again. Vacuum of the source cleans up nothing newer than the position while it is
copied.

Interrupting the command cancels the copy; with --no-wait it goes on by itself, --status shows
it, and --cancel ends it.`

func (a *app) databaseCopy() *cobra.Command {
	var in api.CopyDatabase
	rate := ""
	var status, cancel bool
	cmd := &cobra.Command{
		Use:   "copy DATABASE NEW",
		Short: "Make an independent copy at a stated position",
		Long:  databaseCopyLong,
		Example: `  twinspan database copy sales sales_test
  twinspan database copy sales sales_test --peer b --rate 50MB
  twinspan database copy sales sales_test --status`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeDatabases,
		PreRunE: func(*cobra.Command, []string) (err error) {
			in.BytesPerSecond, err = parseSize(rate)
			return err
		},
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			in.Database, in.Name = args[0], args[1]
			v, err := a.copyOf(ctx, c, in, status, cancel)
			if err != nil {
				return err
			}
			return a.tellCopy(v, cancel)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&in.Peer, "peer", "", "the `peer` on whose instance the copy is made")
	flags.StringVar(&rate, "rate", "", "copy rows no faster than this `size` per second, such as 50MB")
	flags.BoolVar(&status, "status", false, "show the copy of that name that is under way, or the last")
	flags.BoolVar(&cancel, "cancel", false, "end the copy of that name that is under way")
	cmd.MarkFlagsMutuallyExclusive("status", "cancel", "rate")
	a.completeFlag(cmd, "peer", a.completePeers)
	return cmd
}

// copyOf does what the flags ask for.
func (a *app) copyOf(ctx context.Context, c *client.Client, in api.CopyDatabase, status, cancel bool) (api.DatabaseCopy, error) {
	if status || cancel {
		all, err := c.Copies(ctx)
		if err != nil {
			return api.DatabaseCopy{}, err
		}
		for _, v := range all { // the newest first
			if v.Database != in.Database || v.Name != in.Name || in.Peer != "" && v.Peer != in.Peer {
				continue
			}
			if cancel && v.State == api.Copying {
				return c.CancelCopy(ctx, v.ID)
			}
			return v, nil
		}
		return api.DatabaseCopy{}, problem.New(problem.NotFound, "copy_unknown", "the agent knows no copy of %q with the name %q since it was started", in.Database, in.Name).On(in.Name).
			WithHint("twinspan database copies shows those that it knows; an unfinished one leaves nothing")
	}
	v, err := c.CopyDatabase(ctx, in)
	if err != nil || a.flags.noWait {
		return v, err
	}
	return a.waitCopied(ctx, c, v)
}

// waitCopied shows a copy's progress until it is over. An interrupt cancels it.
func (a *app) waitCopied(ctx context.Context, c *client.Client, v api.DatabaseCopy) (api.DatabaseCopy, error) {
	what := "the copy of "
	if v.Restore != nil {
		what = "the restore of "
	}
	return follow(ctx, a, v, followed[api.DatabaseCopy]{
		running: func(v api.DatabaseCopy) bool { return v.State == api.Copying },
		shown: func(v api.DatabaseCopy) reading {
			return reading{v.Name, v.Step, v.TablesDone, v.TablesTotal, v.BytesDone, v.BytesTotal}
		},
		look: func(ctx context.Context) (api.DatabaseCopy, error) { return c.Copy(ctx, v.ID) },
		lost: lostCopy,
		cancel: func(ctx context.Context) error {
			_, err := c.CancelCopy(ctx, v.ID)
			return err
		},
		cancelled: what + v.Database + " was cancelled",
	})
}

// lostCopy explains what it means that a copy is not known any more.
func lostCopy(err error) error {
	var sent *api.Error
	if errors.As(err, &sent) && sent.Code == "copy_unknown" {
		return problem.New(problem.Transient, "copy_lost", "the agent was started anew and has forgotten the copy").WithHint("copy again")
	}
	return err
}

// tellCopy shows a copy or a restore. One that has failed is the command's error, unless it was to
// be ended.
func (a *app) tellCopy(v api.DatabaseCopy, ended bool) error {
	if err := a.answer(v, func(w io.Writer) { showCopy(w, v) }); err != nil || ended {
		return err
	}
	return copyError(v)
}

// showCopy prints a copy for people.
func showCopy(w io.Writer, v api.DatabaseCopy) {
	where := ""
	if v.Peer != "" {
		where = " on the instance of " + v.Peer
		if v.Incoming {
			where = " for " + v.Peer
		}
	}
	done := "copied"
	if v.Restore != nil {
		done = "restored"
	}
	switch v.State {
	case api.Copying:
		fmt.Fprintf(w, "%s is being %s to %s%s: %s\n", v.Database, done, v.Name, where, v.Step)
	case api.Copied:
		fmt.Fprintf(w, "%s is %s to %s%s\n", v.Database, done, v.Name, where)
	default:
		fmt.Fprintf(w, "%s is not %s to %s%s: %s\n", v.Database, done, v.Name, where, v.State)
	}
	switch {
	case v.Restore != nil:
		showRestored(w, v)
	case v.Position != "":
		fmt.Fprintf(w, "  position      %s\n", positionOf(v))
	}
	if v.CommittedAt != nil {
		fmt.Fprintf(w, "  committed at  %s on the primary\n", when(*v.CommittedAt))
	} else if v.Link != "" && v.Position != "" && v.Restore == nil {
		fmt.Fprintln(w, "  committed at  not known")
	}
	if v.LargeObjects > 0 {
		asOf := ""
		if v.ObjectsAsOf != nil {
			asOf = ", as of " + when(*v.ObjectsAsOf)
		}
		fmt.Fprintf(w, "  large objects %d%s\n", v.LargeObjects, asOf)
	}
	if len(v.Roles) > 0 {
		fmt.Fprintf(w, "  roles made, without the right to log in: %s\n", strings.Join(v.Roles, ", "))
	}
	for _, left := range v.Left {
		fmt.Fprintf(w, "  not in the copy: %s\n", left)
	}
}

func positionOf(v api.DatabaseCopy) string {
	text := v.Position
	if !v.Exact {
		text = "up to " + text + ", not exactly: something was written at that moment, and wal_level is not logical"
	}
	if v.Link != "" {
		text += " of the primary of link " + v.Link
	}
	return text
}

// copyError makes the exit status.
func copyError(v api.DatabaseCopy) error {
	switch v.State {
	case api.CopyFailed:
		if p := v.Problem; p != nil {
			return errorOf(problem.Transient, *p)
		}
	case api.CopyCancelled:
		return problem.New(problem.Cancelled, "copy_cancelled", "the copy was cancelled")
	}
	return nil
}

func (a *app) databaseCopies() *cobra.Command {
	return &cobra.Command{
		Use:   "copies",
		Short: "List the copies since the agent was started",
		Long: `List the copies of databases that the agent makes or has made since it was started, the
newest first: those that its operator asked for, and those that it makes for peers. Restores
are among them.`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			all, err := c.Copies(ctx)
			if err != nil {
				return err
			}
			return a.answer(all, func(w io.Writer) {
				var rows [][]string
				for _, v := range all {
					from, to := v.Database, v.Name
					if v.Peer != "" && v.Incoming {
						from = v.Peer + ":" + from
					} else if v.Peer != "" {
						to = v.Peer + ":" + to
					}
					how := string(v.State)
					if v.State == api.Copying {
						how = v.Step
						if v.BytesTotal > 0 {
							how += fmt.Sprintf(", %d%%", min(100, v.BytesDone*100/v.BytesTotal))
						}
					}
					rows = append(rows, []string{from, to, how, dash(v.Position), when(v.StartedAt)})
				}
				terminal.Table(w, []string{"DATABASE", "COPY", "STATE", "POSITION", "STARTED"}, rows)
			})
		}),
	}
}
