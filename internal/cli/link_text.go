package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/terminal"
)

// newsAge is from when on it is said how old the other side's news are.
const newsAge = 10 * time.Second

// state says in a few words what a link does, and since when where nothing else says how
// far it is.
func state(l api.Link) string {
	text := phrase(l.Phase)
	if l.Phase == api.Seeding && l.Seeding.Step != "" {
		text += ", " + l.Seeding.Step
	}
	switch {
	case l.Step != "":
		text += ", " + l.Step + since(l.StepSince)
	case l.Phase == api.Suspended || l.Phase == api.Broken || l.Phase == api.Fenced || l.Phase == api.Creating:
		text += since(l.PhaseSince)
	}
	return text
}

// since says when something began, where that is known.
func since(at *time.Time) string {
	if at == nil {
		return ""
	}
	return " since " + at.UTC().Format("15:04:05 UTC")
}

// lasting is since with the date, and for how long.
func lasting(at *time.Time) string {
	if at == nil {
		return ""
	}
	return fmt.Sprintf(", since %s (%s)", when(*at), terminal.Duration(time.Since(*at).Seconds()))
}

// seeding says how far a copy has come, without a bar.
func seeding(p api.Progress) string {
	text := fmt.Sprintf("%d/%d tables, %s of %s", p.TablesDone, p.TablesTotal, terminal.Size(p.BytesDone), terminal.Size(p.BytesTotal))
	if p.BytesTotal > 0 {
		text += fmt.Sprintf(" (%d%%)", percent(p))
	}
	if p.BytesPerSecond > 0 {
		text += fmt.Sprintf(", %s/s", terminal.Size(p.BytesPerSecond))
	}
	if p.EtaSeconds > 0 {
		text += fmt.Sprintf(", %s left", terminal.Duration(p.EtaSeconds))
	}
	return text
}

func percent(p api.Progress) int64 {
	if p.BytesTotal <= 0 {
		return 0
	}
	return min(100, p.BytesDone*100/p.BytesTotal)
}

// behind says how far a twin is, as far as that is known.
func behind(l api.Lag) string {
	if l.Bytes == nil && l.Seconds == nil {
		return "not known how far behind"
	}
	return fmt.Sprintf("%s behind (%s)", terminal.Known(l.Bytes, terminal.Size), terminal.Known(l.Seconds, terminal.Duration))
}

func transactions(r api.Rates) string { return terminal.Rate(r.TransactionsPerSecond) }

func moved(r api.Rates) string { return terminal.Size(int64(r.BytesPerSecond)) }

// progressLine is a link on one line, for output that is not redrawn.
func progressLine(l api.Link) string {
	text := l.Name + ": " + state(l)
	switch l.Phase {
	case api.Seeding:
		text += ": " + seeding(l.Seeding)
	case api.CatchingUp, api.Replicating:
		text += fmt.Sprintf(", %s, %s transactions/s", behind(l.Lag), terminal.Known(l.Rates, transactions))
	}
	if !l.Peer.Connected {
		text += ", no connection to " + l.Peer.Name
	}
	for _, p := range l.Problems {
		text += fmt.Sprintf("; [%s] %s", p.Code, p.Title)
	}
	return text
}

// changed says whether two views of a link differ enough for a new line: in what
// it does, or by a twentieth of the copy.
func changed(before, now api.Link) bool {
	const twentieth = 5 // percent
	if before.Phase != now.Phase || before.Step != now.Step || before.Seeding.Step != now.Seeding.Step || before.Peer.Connected != now.Peer.Connected ||
		before.Health != now.Health || len(before.Problems) != len(now.Problems) {
		return true
	}
	for i := range now.Problems {
		if before.Problems[i].Code != now.Problems[i].Code {
			return true
		}
	}
	return now.Phase == api.Seeding && percent(before.Seeding)/twentieth != percent(now.Seeding)/twentieth
}

// progressBlock is a link on a few lines, for a terminal.
func progressBlock(l api.Link) []string {
	block := []string{fmt.Sprintf("%s: %s", l.Name, state(l))}
	switch l.Phase {
	case api.Seeding:
		block = append(block, fmt.Sprintf("  %s %3d%%", terminal.Bar(l.Seeding.BytesDone, l.Seeding.BytesTotal, 40), percent(l.Seeding)),
			"  "+seeding(l.Seeding))
	case api.CatchingUp, api.Replicating:
		block = append(block, fmt.Sprintf("  %s, %s transactions/s, %s/s", behind(l.Lag), terminal.Known(l.Rates, transactions), terminal.Known(l.Rates, moved)))
	}
	if !l.Peer.Connected {
		block = append(block, "  no connection to "+l.Peer.Name)
	}
	for _, p := range l.Problems {
		block = append(block, fmt.Sprintf("  [%s] %s", p.Code, p.Title))
	}
	return block
}

func linkTitles() []string {
	return []string{"NAME", "DATABASE", "ROLE", "PEER", "PHASE", "HEALTH", "LAG", "BYTES", "TX/S"}
}

func linkRow(l api.Link) []string {
	peer := l.Peer.Name
	if !l.Peer.Connected {
		peer += " (away)"
	}
	phase := phrase(l.Phase)
	if l.Phase == api.Seeding {
		phase += fmt.Sprintf(" %d%%", percent(l.Seeding))
	}
	lag, bytes := "-", "-"
	if l.Phase == api.Replicating || l.Phase == api.CatchingUp || l.Phase == api.Suspended {
		lag, bytes = terminal.Known(l.Lag.Seconds, terminal.Duration), terminal.Known(l.Lag.Bytes, terminal.Size)
	}
	rate := "-"
	if l.Rates != nil || l.Phase == api.Replicating || l.Phase == api.CatchingUp {
		rate = terminal.Known(l.Rates, transactions)
	}
	return []string{l.Name, l.Database, string(l.Role), peer, phase, string(l.Health), lag, bytes, rate}
}

// showLink prints all that is known of a link, for somebody who wants to know
// whether it is well and, if not, where to look.
func showLink(w io.Writer, l api.Link) {
	fmt.Fprintf(w, "%s: %s, %s\n\n", l.Name, phrase(l.Phase), l.Health)
	field := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	if l.Step != "" {
		field("step", "%s", l.Step+lasting(l.StepSince))
	}
	if l.PhaseSince != nil {
		field("phase", "%s", phrase(l.Phase)+lasting(l.PhaseSince))
	}
	connected := "connected"
	if !l.Peer.Connected {
		connected = "not connected"
	}
	field("this side", "%s, database %s", l.Role, l.Database)
	field("other side", "%s, database %s on %s, %s", l.Peer.Role, l.Peer.Database, l.Peer.Name, connected)
	switch at := l.Peer.HeardAt; {
	case at == nil && !l.Peer.Connected:
		field("last heard", "not since this agent was started")
	case at != nil && time.Since(*at) > newsAge:
		field("last heard", "%s, %s ago: what the other side has done since is unknown", when(*at), terminal.Duration(time.Since(*at).Seconds()))
	}
	field("link", "id %s, epoch %d, %s", l.ID, l.Epoch, l.Mode)
	if l.Sync != nil {
		field("mode", "%s", modeText(l))
	}
	if !l.CreatedAt.IsZero() {
		field("created", "%s", when(l.CreatedAt))
	}
	if l.Suspended {
		field("suspended", "on request; the primary keeps its log until: twinspan link resume %s", l.Name)
	}
	if f := l.LastFailover; f != nil {
		text := fmt.Sprintf("%s at %s", f.Type, when(f.At))
		if f.Type == string(api.Planned) {
			text += ", writers waited " + terminal.Duration(f.HoldSeconds)
		}
		field("failover", "%s", text)
	}
	if l.Seeding.TablesTotal > 0 {
		field("seeding", "%s %s", terminal.Bar(l.Seeding.BytesDone, l.Seeding.BytesTotal, 20), seeding(l.Seeding))
		if l.Seeding.Step != "" {
			field("", "%s", l.Seeding.Step)
		}
	}
	fmt.Fprintln(w)
	showPosition(w, l.Position)
	fmt.Fprintln(w)
	field("lag", "%s, %s", terminal.Known(l.Lag.Seconds, terminal.Duration), terminal.Known(l.Lag.Bytes, terminal.Size))
	if l.Rates == nil {
		field("rates", "unknown, or nothing streams")
	} else {
		field("rates", "%s transactions/s, %s changes/s, %s/s", transactions(*l.Rates), terminal.Rate(l.Rates.ChangesPerSecond), moved(*l.Rates))
	}
	if s := l.Time; s != nil {
		field("time", "%.0f%% waiting for the primary, %.0f%% network, %.0f%% applying, %.0f%% committing", 100*s.Source, 100*s.Network, 100*s.Applying, 100*s.Committing)
	}
	if l.SpilledBytes > 0 {
		field("spilled", "%s of large transactions that are under way, on the secondary's side", terminal.Size(l.SpilledBytes))
	}
	if o := l.LargeObjects; o != nil && (o.Objects > 0 || o.Running) {
		field("objects", "%s", largeObjects(*o))
	}
	if l.Audit != nil {
		field("audit", "%s", auditText(*l.Audit))
	}
	if l.OnConflict != "" && l.OnConflict != "wait" {
		field("conflicts", "%s: sessions on the secondary that are in the way are ended after that", l.OnConflict)
	}
	if l.OnIsolation != "" && l.OnIsolation != "serve" {
		field("isolation", "%s: a primary that has lost its twin refuses writes after that", l.OnIsolation)
	}
	if l.MaxRate > 0 && l.Phase == api.Seeding {
		field("limit", "%s of rows a second", terminal.Size(l.MaxRate))
	}
	if l.SchemaChanges == api.Compared {
		field("schema", "compared alone: no event triggers on the primary, a change of its schema stops the link")
	}
	showProblems(w, l.Problems)
	if len(l.Notices) > 0 {
		fmt.Fprintf(w, "\nWhat the link did:\n")
		for _, n := range l.Notices {
			fmt.Fprintf(w, "  %s  %s\n", when(n.At), strings.TrimPrefix(n.Subject+": "+n.Text, ": "))
		}
	}
}

// showPosition prints the stations of the log and, between each two, what waits
// there: the station after the largest wait is the one that is slow.
func showPosition(w io.Writer, p api.Position) {
	stations := []struct{ name, at, waits string }{
		{"written", p.Written, ""},
		{"sent", p.Sent, "to be sent"},
		{"received", p.Received, "on the way"},
		{"applied", p.Applied, "to be applied"},
		{"confirmed", p.Confirmed, "to become durable"},
	}
	var before lsn.LSN
	for _, s := range stations {
		at, err := lsn.Parse(s.at)
		if err != nil || at == 0 {
			fmt.Fprintf(w, "  %-11s unknown\n", s.name)
			continue
		}
		wait := ""
		if n := at.Behind(before); s.waits != "" && n > 0 {
			wait = fmt.Sprintf("%s %s", terminal.Size(n), s.waits)
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %-11s %-17s %s", s.name, at, wait), " "))
		before = at
	}
}

func showProblems(w io.Writer, problems []api.Problem) {
	if len(problems) == 0 {
		return
	}
	fmt.Fprintf(w, "\nProblems:\n")
	for _, p := range problems {
		fmt.Fprintf(w, "  %-7s [%s] %s\n", p.Severity, p.Code, p.Title)
		if p.Subject != "" {
			fmt.Fprintf(w, "          %s\n", p.Subject)
		}
		if p.Hint != "" {
			fmt.Fprintf(w, "          hint: %s\n", p.Hint)
		}
	}
}

// showSeedingTables writes how far each table of a first copy is.
func showSeedingTables(w io.Writer, s api.SeedingTables) {
	if !s.Known {
		fmt.Fprintln(w, "no rows are being copied")
		return
	}
	var rows [][]string
	for _, t := range s.Tables {
		rows = append(rows, []string{t.Table, t.State, terminal.Size(t.BytesDone), terminal.Size(t.BytesTotal)})
	}
	terminal.Table(w, []string{"TABLE", "STATE", "COPIED", "OF"}, rows)
	if s.More > 0 {
		fmt.Fprintf(w, "and %s more\n", terminal.Plural(s.More, "table"))
	}
}
