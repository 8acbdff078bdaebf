package pgbackrest

import (
	"regexp"
	"strings"
	"unicode"

	"github.com/twinspan/twinspan/internal/problem"
)

// symptom tells by a text in what pgBackRest says which problem it is.
type symptom struct {
	text string
	kind problem.Kind
	code string
	what string
	hint string
}

// In this order: a later one may be what follows from an earlier one.
var symptoms = []symptom{
	{"No space left on device", problem.Resource, "backup_repository_full", "the disk of the backups is full", "free space there, keep backups for fewer days (twinspan backup policy --retention-days), or name another repository"},
	{"Disk quota exceeded", problem.Resource, "backup_repository_full", "the disk of the backups is full", "free space there, keep backups for fewer days (twinspan backup policy --retention-days), or name another repository"},
	{"HostConnectError", problem.Transient, "backup_store_unreachable", "the object store does not answer", "see that its host answers from this machine; what it misses is brought to it when it does"},
	{"[ServiceError]", problem.Transient, "backup_store_unreachable", "the object store does not answer", "see that its host answers from this machine; what it misses is brought to it when it does"},
	{"unable to get address", problem.Transient, "backup_store_unreachable", "the object store does not answer", "see that its host answers from this machine; what it misses is brought to it when it does"},
	{"CryptoError", problem.Unauthorised, "backup_key_wrong", "the key does not open the backups", "put back the key with which the repository was made, as twinspan backup policy --export wrote it"},
	{"key/value found outside of section", problem.Unauthorised, "backup_key_wrong", "the key does not open the backups", "put back the key with which the repository was made, as twinspan backup policy --export wrote it"},
	{"[050]", problem.Conflict, "backup_busy", "another pgBackRest works in the repository", "wait until it has ended; a backup that an earlier agent began ends with it"},
	{"[082]", problem.Transient, "backup_log_late", "the server's log did not reach the repository in time", "see that the disk of the repository is not overloaded; it is tried again by itself"},
	{"ermission denied", problem.Unauthorised, "backup_repository_unwritable", "the server's user may not use the repository", "give the repository's directory to the server's user, with mode 0750 or less"},
	{"Read-only file system", problem.Unauthorised, "backup_repository_unwritable", "the repository cannot be written", "mount its file system for writing, or name another repository"},
	{"failed with 401", problem.Unauthorised, "backup_store_refused", "the object store refuses the credentials", "give others: twinspan backup policy --add-repository with --credentials; they have to allow to list, read, write and delete"},
	{"failed with 403", problem.Unauthorised, "backup_store_refused", "the object store refuses the credentials", "give others: twinspan backup policy --add-repository with --credentials; they have to allow to list, read, write and delete"},
	{"failed with 404", problem.NotFound, "backup_bucket_missing", "the object store has no such bucket", "make the bucket or the container first; twinspan makes none"},
	{"do not match the database", problem.Diverged, "backup_repository_foreign", "the repository holds the backups of another instance", "name another repository"},
	{"already exists in the", problem.Diverged, "backup_repository_foreign", "the repository holds other log under the same name", "another instance writes into it: name another repository"},
	{"has a stanza-create been performed", problem.NotFound, "backup_repository_missing", "the repository is gone", "bring it back where it was; without it a new one is made when the agent starts, or name another repository"},
	{"unable to find database cluster", problem.Transient, "backup_server_away", "the server does not answer", "it is tried again by itself"},
	{"unable to connect to", problem.Transient, "backup_server_away", "the server does not answer", "it is tried again by itself"},
}

// shortWrite is what is said of a file of which a part alone could be written, for want of room: then the system gives no reason.
var shortWrite = regexp.MustCompile(`(?m)unable to write '.*'\s*$`)

var errorLine = regexp.MustCompile(`ERROR: \[(\d+)\]: (.*)`)

// failure makes a problem of what pgBackRest said before it failed.
func failure(said string) *problem.Error {
	reason := reasonOf(said)
	for _, s := range symptoms {
		if strings.Contains(said, s.text) {
			return problem.New(s.kind, s.code, "%s: %s", s.what, reason).WithHint("%s", s.hint)
		}
	}
	if shortWrite.MatchString(said) {
		full := symptoms[0]
		return problem.New(full.kind, full.code, "%s: %s", full.what, reason).WithHint("%s", full.hint)
	}
	return problem.New(problem.Internal, "backup_failed", "pgBackRest failed: %s", reason).
		WithHint("its log in the directory backup/log of the agent says more; it is tried again by itself")
}

// reasonOf is the line of the error, without what a terminal would not show.
func reasonOf(said string) string {
	text := strings.TrimSpace(said)
	if m := errorLine.FindStringSubmatch(said); m != nil {
		text = "[" + m[1] + "] " + m[2]
		// Of "unable to find a valid repository:" the reason comes behind.
		if _, rest, _ := strings.Cut(said, m[0]); strings.HasSuffix(text, ":") {
			next, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
			text += " " + next
		}
	} else {
		text, _, _ = strings.Cut(text, "\n")
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, text)
	if text == "" {
		return "no reason given"
	}
	const most = 300
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + " ..."
	}
	return text
}
