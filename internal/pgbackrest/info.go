package pgbackrest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

// stanzaInfo is what "pgbackrest info --output=json" says of a stanza (its documentation, "Info Command", and
// src/command/info/info.c).
type stanzaInfo struct {
	Name   string      `json:"name"`
	Backup []setInfo   `json:"backup"`
	Repo   []repoState `json:"repo"`
}

type repoState struct {
	Status struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"status"`
}

type setInfo struct {
	Label     string        `json:"label"`
	Type      string        `json:"type"`
	Reference []string      `json:"reference"`
	Error     bool          `json:"error"`
	Databases []databaseRef `json:"database-ref"` // where one set was asked for
	LSN       struct {
		Start lsn.LSN `json:"start"`
		Stop  lsn.LSN `json:"stop"`
	} `json:"lsn"`
	Timestamp struct {
		Start int64 `json:"start"`
		Stop  int64 `json:"stop"`
	} `json:"timestamp"`
	Info struct {
		Size       int64 `json:"size"`
		Repository struct {
			Delta int64 `json:"delta"`
		} `json:"repository"`
	} `json:"info"`
}

// Codes of a repository's status.
const (
	statusNoStanza   = 1
	statusNoData     = 3
	statusOther      = 99
	unreadableAnswer = "pgbackrest_answer"
)

// parseInfo reads the answer for one stanza. A repository without backups is empty and no error.
func parseInfo(text []byte, stanza string) (stanzaInfo, error) {
	var all []stanzaInfo
	// With a wrong key it quotes what it has deciphered, control characters included.
	text = bytes.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
	if err := json.Unmarshal(text, &all); err != nil {
		return stanzaInfo{}, problem.Wrap(err, problem.Incompatible, unreadableAnswer, "the answer of pgBackRest cannot be read").
			WithHint("report it with the version of pgBackRest")
	}
	for _, s := range all {
		if s.Name != stanza {
			continue
		}
		for _, r := range s.Repo {
			switch r.Status.Code {
			case statusOther:
				return s, failure(r.Status.Message)
			case statusNoStanza, statusNoData:
				return s, problem.New(problem.NotFound, "backup_repository_missing", "the repository of the backups is gone: %s", r.Status.Message).
					WithHint("bring it back, for instance by mounting its file system")
			}
		}
		return s, nil
	}
	return stanzaInfo{}, nil
}

// contents are the sets of a stanza, the oldest first.
func (s stanzaInfo) contents() backup.Contents {
	var c backup.Contents
	for _, b := range s.Backup {
		c.Sets = append(c.Sets, backup.Set{
			Label: b.Label, Kind: backup.Kind(b.Type), Needs: b.Reference,
			Start: time.Unix(b.Timestamp.Start, 0).UTC(), Stop: time.Unix(b.Timestamp.Stop, 0).UTC(),
			From: b.LSN.Start, To: b.LSN.Stop, Bytes: b.Info.Size, Stored: b.Info.Repository.Delta, Damaged: b.Error,
		})
	}
	slices.SortStableFunc(c.Sets, func(a, b backup.Set) int { return cmp.Or(a.Stop.Compare(b.Stop), cmp.Compare(a.Label, b.Label)) })
	return c
}

// parseVerify reads the text of "pgbackrest verify --output=text --verbose" (src/command/verify/verify.c).
func parseVerify(text string) (backup.Report, bool) {
	var r backup.Report
	understood := false
	for _, block := range blocks(text) {
		head, rest, _ := strings.Cut(block, "\n")
		bad := damage(rest)
		switch {
		case strings.HasPrefix(head, "status:"):
			understood = true
		case strings.HasPrefix(head, "archiveId:"):
			r.Segments += number(after(head, "total WAL checked: "))
			if len(bad) > 0 {
				r.Findings = append(r.Findings, backup.Finding{Text: "log: " + strings.Join(bad, ", ")})
			}
		case strings.HasPrefix(head, "backup:"):
			label, _, _ := strings.Cut(after(head, "backup: "), ",")
			r.Sets++
			state, _, _ := strings.Cut(after(head, "status: "), ",")
			if state != "valid" || len(bad) > 0 {
				r.Findings = append(r.Findings, backup.Finding{Set: label, Text: strings.Join(append([]string{state}, bad...), ", ")})
			}
		}
	}
	return r, understood
}

// blocks joins the lines that belong to one heading.
func blocks(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case strings.HasPrefix(line, "stanza:"), strings.HasPrefix(line, "status:"), strings.HasPrefix(line, "archiveId:"), strings.HasPrefix(line, "backup:"), len(all) == 0:
			all = append(all, line)
		default:
			all[len(all)-1] += "\n" + line
		}
	}
	return all
}

// damage lists the counts that are not 0 of a line such as "missing: 0, checksum invalid: 1".
func damage(text string) []string {
	var bad []string
	for line := range strings.Lines(text) {
		for part := range strings.SplitSeq(line, ",") {
			name, count, ok := strings.Cut(strings.TrimSpace(part), ": ")
			if ok && number(count) > 0 {
				bad = append(bad, name+": "+count)
			}
		}
	}
	return bad
}

// after is what follows a text, "" where it is not there.
func after(s, text string) string {
	_, rest, _ := strings.Cut(s, text)
	return rest
}

// number reads the digits at the beginning of a text.
func number(s string) int {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}
