package assess

import (
	"fmt"
	"strconv"
)

// fault is a defect of PostgreSQL that matters to links, and the minor versions
// that have it.
type fault struct {
	code       string
	major      int
	from, till int  // the first minor with it, the last
	secondary  bool // it matters there too
	why        string
}

// faults are known. Sources: the release notes of the minor versions and the
// commits named there.
//
//   - The minor versions of May 2025 hand invalidations on to all running
//     transactions, those that were handed on before again, so that schema changes
//     beside long transactions let them grow without end. Commit d87d07b7a of June
//     2025, in the minor versions of August, mended it.
//   - Version 14 until 14.4 (June 2022): CREATE INDEX CONCURRENTLY and REINDEX
//     CONCURRENTLY could leave rows out of an index.
func faults() []fault {
	const decoding = "reading the log of schema changes beside long transactions can take ever more memory and fail with \"invalid memory alloc request size\""
	const indexes = "CREATE INDEX CONCURRENTLY and REINDEX CONCURRENTLY can leave rows out of the index"
	return []fault{
		{"decoding_defect", 13, 21, 21, false, decoding},
		{"decoding_defect", 14, 18, 18, false, decoding},
		{"decoding_defect", 15, 13, 13, false, decoding},
		{"decoding_defect", 16, 9, 9, false, decoding},
		{"decoding_defect", 17, 5, 5, false, decoding},
		{"index_defect", 14, 0, 3, true, indexes},
	}
}

// judgeVersion finds what is wrong with a server's version (server_version_num).
func judgeVersion(number int, secondary bool) []Finding {
	var f findings
	major, minor := number/10000, number%10000
	side, oldest := "the primary", OldestPrimary
	if secondary {
		side, oldest = "the secondary", OldestSecondary
	}
	f.blocksIf(major < oldest, "version_unsupported", "server", fmt.Sprintf("PostgreSQL %d cannot be %s of a link", major, side),
		fmt.Sprintf("use version %d or newer", oldest))
	f.warnsIf(major > NewestTested, "version_untested", "server", fmt.Sprintf("PostgreSQL %d is newer than what Twinspan was tested with", major),
		fmt.Sprintf("use version %d, or try it with a copy of the database first", NewestTested))
	for _, d := range faults() {
		if d.major == major && minor >= d.from && minor <= d.till && (d.secondary || !secondary) {
			f.warnsIf(true, d.code, "PostgreSQL "+strconv.Itoa(major)+"."+strconv.Itoa(minor), "this minor version has a known defect: "+d.why,
				fmt.Sprintf("install %d.%d or newer and restart the server", major, d.till+1))
		}
	}
	return f
}
