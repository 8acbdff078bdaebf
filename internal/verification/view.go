package verification

import (
	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/verify"
)

func showMore(f *verify.Findings) []string {
	list := []string{}
	for _, t := range f.Tables {
		if t.More {
			list = append(list, t.Table.String())
		}
	}
	return list
}

func showSkipped(f *verify.Findings) []api.SkippedTable {
	list := []api.SkippedTable{}
	for _, d := range f.Undecided {
		list = append(list, api.SkippedTable{Table: d.Kind + " " + d.Name, Why: "the servers print it in other words, and the secondary cannot tell whether it means the same"})
	}
	for _, s := range f.Skipped {
		list = append(list, api.SkippedTable{Table: s.Name, Why: s.Why})
	}
	return list
}
