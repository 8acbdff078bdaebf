package member

import (
	"context"
	"slices"
	"strings"
	"time"
)

// absentAfter is how long neither program of a member may answer before it is taken for gone.
const absentAfter = 8 * time.Second

// absence notes which members do not answer, and lets the lead go of one that nobody sees any more. Patroni waits for 20 s of silence, and for as long again where the etcd that is
// gone led the others, for these then begin to count anew: with the leader's host both are gone. Whoever is cut off from all others has no majority in etcd
// and cannot stay leader, so nothing is decided here that Patroni would not decide some seconds later; a leader that comes back finds that it is
// none, as after any failover.
type absence struct {
	seen map[string]time.Time // when a member answered last
	said string               // what this member has told the others
}

// away lists the members that have not answered for long.
func (a *absence) away(list []Seen, now time.Time) []string {
	if a.seen == nil {
		a.seen = map[string]time.Time{}
	}
	var gone []string
	for _, m := range list {
		if _, known := a.seen[m.Name]; !known || m.Answers || m.Alive {
			a.seen[m.Name] = now
		} else if now.Sub(a.seen[m.Name]) > absentAfter {
			gone = append(gone, m.Name)
		}
	}
	return gone
}

// agreed says whether a member is away for all that are not, and whether these are more than half of those that vote. said is what each member has told, by name.
func agreed(who string, list []Seen, gone []string, said map[string][]string) bool {
	voters, agree := 0, 0
	for _, m := range list {
		if m.Votes {
			voters++
		}
		switch {
		case slices.Contains(gone, m.Name):
		case !slices.Contains(said[m.Name], who):
			return false
		case m.Votes:
			agree++
		}
	}
	return agree > voters/2
}

// lookForAbsence tells the others whom this member does not see, and takes the lead from a leader that nobody sees.
func (c *Cluster) lookForAbsence(ctx context.Context, list []Seen, now time.Time) {
	self := c.Record().Self.Name
	gone := c.absence.away(list, now)
	prefix := c.prefix() + "/away/"
	text := strings.Join(gone, ",")
	if text != c.absence.said {
		told := change{prefix + self, []byte(text)}
		if text == "" {
			told.value = nil
		}
		if _, err := c.etcd.write(ctx, "", "", []change{told}); err != nil {
			return
		}
		c.absence.said = text
	}
	if len(gone) == 0 {
		return
	}
	leader, err := c.etcd.under(ctx, c.leaderKey())
	if err != nil || len(leader) == 0 || !slices.Contains(gone, string(leader[0].value)) {
		return
	}
	who := string(leader[0].value)
	found, err := c.etcd.under(ctx, prefix)
	if err != nil {
		return
	}
	said := map[string][]string{}
	for _, p := range found {
		said[strings.TrimPrefix(p.key, prefix)] = strings.Split(string(p.value), ",")
	}
	if !agreed(who, list, gone, said) {
		return
	}
	if took, err := c.etcd.write(ctx, c.leaderKey(), who, []change{{c.leaderKey(), nil}}); err == nil && took {
		c.Log.Warn("the leader answers nobody: another member may lead", "member", who, "silent_for", now.Sub(c.absence.seen[who]).Round(time.Second))
	}
}
