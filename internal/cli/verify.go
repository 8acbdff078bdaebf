package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
)

const linkVerifyLong = `Compare both sides of a link at one exact position of the primary's log, while both
keep working: the schema, every row of every table, large objects, and where sequences
stand. The secondary applies nothing for a few milliseconds, while snapshots are taken;
how long is said in the end. Each side then reads its own tables, and only digests of
blocks of rows cross; of blocks that differ the rows' hashes do. What differs is looked at
again at a later position before it is told.

A row is told by its key and the columns that differ; --values shows what they hold.

With --repair the secondary is brought in line: rows that differ are replaced by the
primary's, rows that are too many deleted, missing and invalid indexes and constraints
built, sequences set, large objects brought anew. Materialized views are compared too,
and refreshed. The primary is never written to. What was repaired is compared again.

Interrupting the command cancels the verification; with --no-wait it goes on by itself,
and --status shows it.

The exit status is 1 when something differs and was not repaired.`

func (a *app) linkVerify() *cobra.Command {
	in := api.Verify{}
	rate := ""
	var status, cancel bool
	cmd := &cobra.Command{
		Use:   "verify NAME",
		Short: "Compare both sides at one exact position",
		Long:  linkVerifyLong,
		Example: `  twinspan link verify sales
  twinspan link verify sales --rate 50MB --table public.orders --values
  twinspan link verify sales --repair`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLinks,
		PreRunE: func(*cobra.Command, []string) (err error) {
			in.BytesPerSecond, err = parseSize(rate)
			return err
		},
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			v, err := a.verification(ctx, c, args[0], in, status, cancel)
			if err != nil {
				return err
			}
			if err := a.answer(v, func(w io.Writer) { showVerification(w, v) }); err != nil || cancel {
				return err
			}
			return verdictError(v)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVar(&in.Repair, "repair", false, "bring the secondary in line with the primary")
	flags.BoolVar(&in.Values, "values", false, "show the values of rows that differ")
	flags.StringSliceVar(&in.Tables, "table", nil, "compare the rows of these `tables` alone")
	flags.StringVar(&rate, "rate", "", "read tables no faster than this `size` per second on each side, such as 50MB")
	flags.IntVar(&in.Workers, "workers", 0, "sessions that read at once on each side (default 2)")
	flags.IntVar(&in.Limit, "limit", 0, "rows told of each table, and repaired at once (default 1000)")
	flags.BoolVar(&status, "status", false, "show the verification under way, or the last")
	flags.BoolVar(&cancel, "cancel", false, "end the verification under way")
	cmd.MarkFlagsMutuallyExclusive("status", "cancel", "repair")
	return cmd
}

// parseSize reads a number of bytes with one of PostgreSQL's units; nothing is 0.
func parseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	number := strings.TrimRight(s, "kKMGTBb ")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("there is no size %q: write it as 500kB, 50MB or 1GB", s)
	}
	shift, known := map[string]int{"": 0, "B": 0, "KB": 10, "MB": 20, "GB": 30, "TB": 40}[strings.ToUpper(strings.TrimSpace(s[len(number):]))]
	if !known || n > 1<<(62-shift) {
		return 0, fmt.Errorf("there is no size %q: write it as 500kB, 50MB or 1GB", s)
	}
	return n << shift, nil
}

// verification does what the flags ask for.
func (a *app) verification(ctx context.Context, c *client.Client, name string, in api.Verify, status, cancel bool) (api.Verification, error) {
	switch {
	case status:
		return c.Verification(ctx, name)
	case cancel:
		return c.CancelVerification(ctx, name)
	}
	v, err := c.Verify(ctx, name, in)
	if err != nil || a.flags.noWait {
		return v, err
	}
	return a.waitVerified(ctx, c, v)
}

// waitVerified shows a verification's progress until it is over. An interrupt
// cancels it: nobody would see the result.
func (a *app) waitVerified(ctx context.Context, c *client.Client, v api.Verification) (api.Verification, error) {
	return follow(ctx, a, v, followed[api.Verification]{
		running: func(v api.Verification) bool { return v.State == api.Verifying },
		shown:   verified,
		look:    func(ctx context.Context) (api.Verification, error) { return c.Verification(ctx, v.Link) },
		lost:    lostVerification,
		cancel: func(ctx context.Context) error {
			_, err := c.CancelVerification(ctx, v.Link)
			return err
		},
		cancelled: "the verification of link " + v.Link + " was cancelled",
	})
}

// lostVerification explains what it means that a verification is not known any
// more.
func lostVerification(err error) error {
	var sent *api.Error
	if errors.As(err, &sent) && sent.Code == "verification_unknown" {
		return problem.New(problem.Transient, "verification_lost", "the agent beside the secondary was started anew and has forgotten the verification").
			WithHint("verify again")
	}
	return err
}

func verified(v api.Verification) reading {
	return reading{v.Link, v.Step, v.TablesDone, v.TablesTotal, v.BytesDone, v.BytesTotal}
}

// verdictError makes the exit status.
func verdictError(v api.Verification) error {
	switch v.State {
	case api.Different:
		p := problem.New(problem.Diverged, "link_differs", "the two sides of link %s differ", v.Link)
		if v.Problem != nil {
			return p.WithHint("%s: %s", v.Problem.Code, v.Problem.Title)
		}
		return p.WithHint("twinspan link verify %s --repair brings the secondary in line", v.Link)
	case api.Failed:
		if p := v.Problem; p != nil {
			return errorOf(problem.Transient, *p)
		}
	case api.Cancelled:
		return problem.New(problem.Cancelled, "verification_cancelled", "the verification was cancelled")
	}
	return nil
}
