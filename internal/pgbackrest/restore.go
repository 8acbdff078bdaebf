package pgbackrest

import (
	"context"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/problem"
)

// Databases implements restore.Repository: it lists the databases that a set holds.
func (e *Engine) Databases(ctx context.Context, set string) ([]backup.Database, error) {
	out, err := e.run(ctx, "info", "--output=json", "--set="+set)
	if err != nil {
		return nil, err
	}
	s, err := parseInfo(out, Stanza)
	if err != nil {
		return nil, err
	}
	for _, b := range s.Backup {
		if b.Label == set {
			return b.databases(), nil
		}
	}
	return nil, problem.New(problem.NotFound, "backup_repository_missing", "the backup %s is gone", set).On(set).
		WithHint("twinspan backup list shows the backups that there are")
}

// databases lists what "info --set" says of a set's databases.
func (b setInfo) databases() []backup.Database {
	var list []backup.Database
	for _, d := range b.Databases {
		list = append(list, backup.Database{Name: d.Name, OID: d.OID})
	}
	return list
}

// place are the options for a data directory that is not the instance's. It has locks of its own, so that several can
// be restored at once.
func place(dir string) []string {
	return []string{"--pg1-path=" + filepath.Join(dir, "data"), "--lock-path=" + filepath.Join(dir, "locks")}
}

// Restore implements restore.Repository: it puts a set into the directory data of dir, and tablespaces beside it. Of
// the databases that are not only's the files are left empty; "" brings all. Recovery is not configured.
func (e *Engine) Restore(ctx context.Context, set, only, dir string) error {
	args := append(place(dir), "--set="+set, "--type=none", "--tablespace-map-all="+filepath.Join(dir, "tablespaces"),
		"--link-all=n")
	if only != "" {
		args = append(args, "--db-include="+only)
	}
	_, err := e.run(ctx, "restore", args...)
	return unrestored(problem.As(err), set, dir)
}

// damaged is what pgBackRest says of a file that is not as it was written.
var damaged = regexp.MustCompile(`checksum|[Cc]orruption|zst error|\[FormatError\]|\[029\]`)

// unrestored says of a failure to restore a set what it means for that.
func unrestored(p *problem.Error, set, dir string) error {
	switch {
	case p == nil:
		return nil
	case p.Code == "backup_repository_full":
		return problem.New(problem.Resource, "restore_space_short", "there is no room for the restore: %s", p.Error()).On(dir).
			WithHint("make room on the disk of the agent's directory; nothing of the restore is left there")
	// The key has opened the list of the backups before. What was enciphered and compressed fails there first.
	case p.Code == "backup_key_wrong", p.Code == "backup_failed" && damaged.MatchString(p.Error()):
		return problem.New(problem.Diverged, "backup_damaged", "the backup is damaged: %s", p.Error()).On(set).
			WithHint("restore to a moment behind another backup, and make a full one now: twinspan backup now --type full")
	case p.Code == "backup_failed":
		return problem.New(problem.Internal, "restore_failed", "the backup cannot be restored: %s", p.Error()).On(set).
			WithHint("twinspan backup verify looks for damage; restore to a moment behind another backup")
	}
	return p
}

// Fetch implements restore.Repository: it renders the command of a shell that brings the file of the log $1 to the
// path $2 of a server restored into dir. Its exit status is 1 when the repository does not have the file.
func (e *Engine) Fetch(ctx context.Context, dir string) (string, error) {
	program, err := e.found(ctx)
	if err != nil {
		return "", err
	}
	words := append([]string{program, "--config=" + e.path(configFile), "--stanza=" + Stanza}, place(dir)...)
	return shell(append(words, "archive-get")...) + ` "$1" "$2"`, nil
}

// Segment implements restore.Repository and backup.Engine: it brings a segment of the log into a file.
func (e *Engine) Segment(ctx context.Context, name, file string) error {
	if e.borrowed {
		return e.unpack(ctx, name, file)
	}
	_, err := e.run(ctx, "archive-get", name, file)
	return err
}

// unpack is Segment where there is no data directory of the instance, by which archive-get knows that the log is its.
func (e *Engine) unpack(ctx context.Context, name, file string) error {
	files, err := e.archived(ctx)
	if err != nil {
		return err
	}
	from, ok := files[name]
	if !ok {
		return missing(name)
	}
	packed, err := e.run(ctx, "repo-get", from)
	if err != nil {
		return err
	}
	if strings.HasSuffix(from, ".zst") {
		decoder, err := zstd.NewReader(nil)
		if err != nil {
			return problem.Wrap(err, problem.Internal, "internal", "unpack log")
		}
		defer decoder.Close()
		if packed, err = decoder.DecodeAll(packed, nil); err != nil {
			return problem.Wrap(err, problem.Diverged, "backup_damaged", "a segment of the log is damaged").On(name).
				WithHint("restore to a moment before it, or out of another repository")
		}
	}
	return e.Server.PutFile(file, packed)
}

func missing(segment string) error {
	return problem.New(problem.NotFound, "restore_log_missing",
		"the repository does not have the segment %s of the log", segment).On(segment).
		WithHint("what was committed behind it cannot be restored; make a full backup now, twinspan backup now --type full")
}

// Reason implements restore.Repository: it makes a problem of what Fetch's command said before it failed, nil where
// it said nothing.
func (e *Engine) Reason(said string) *problem.Error {
	if !errorLine.MatchString(said) {
		return nil
	}
	return failure(said).On(e.place())
}

// databaseRef is a database in the answer of "info --set".
type databaseRef struct {
	Name string `json:"name"`
	OID  uint32 `json:"oid"`
}

// Borrow lets the engine read a repository that another instance makes, or made: with its key and its credentials, and
// without writing into it. The directory of the engine is made for that. It is called in the place of Prepare.
func (e *Engine) Borrow(ctx context.Context, key string, credentials backup.Credentials) error {
	if err := e.makeDirs(); err != nil {
		return err
	}
	program, err := e.find(ctx)
	if err != nil {
		return err
	}
	place, err := backup.ParsePlace(e.place())
	if err != nil {
		return err
	}
	if place.Kind == backup.Directory && !e.exists(place) {
		return problem.New(problem.NotFound, "backup_repository_missing", "there is no repository of an instance").
			On(place.Path).
			WithHint("name the directory that twinspan backup policy shows, as this machine has it, readable for the user of its managed server")
	}
	e.borrowed = true
	if e.credentials = credentials; e.credentials == nil {
		e.credentials = backup.Credentials{}
	}
	return e.configure(place, key, program)
}
