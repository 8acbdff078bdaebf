package drift

import "time"

const (
	// schemaQuiet is how long the catalogs have to be still before they are compared,
	// and schemaBusy how long a comparison is put off for that.
	schemaQuiet = 5 * time.Second
	schemaBusy  = time.Minute
	// SignBelieved is how long a sign counts that does not change: a session that
	// rests may hold its counts back (pgstat.c).
	SignBelieved = 10 * time.Minute
)

// Pace decides when schemas are compared.
type Pace struct {
	equal     string    // the signs when both schemas were found equal
	equalAt   time.Time //
	last      string    // the signs that were seen last
	changedAt time.Time // since when they are not those of equal
	still     time.Time // since when they are what they are
}

// Due says whether to compare now.
func (p *Pace) Due(now time.Time, sign string) bool {
	if sign != p.last {
		if p.last == p.equal {
			p.changedAt = now
		}
		p.last, p.still = sign, now
	}
	if sign == p.equal {
		return now.Sub(p.equalAt) >= SignBelieved
	}
	return now.Sub(p.still) >= schemaQuiet || now.Sub(p.changedAt) >= schemaBusy
}

// Settled notes that the schemas are as they may be, at these signs.
func (p *Pace) Settled(now time.Time, sign string) { p.equal, p.equalAt = sign, now }
