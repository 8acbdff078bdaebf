package usage

import (
	"encoding/csv"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Settings are those with which a server logs who logs in, in a form that can be read without doubt. They take effect in a running server.
func Settings() map[string]string {
	return map[string]string{"log_destination": "stderr,csvlog", "log_connections": "on", "log_timezone": "UTC"}
}

// login is a session that the log tells of.
type login struct {
	at          time.Time
	id          string // of the session
	pid         uint32
	role        string
	database    string
	application string
	client      string
	refused     bool // it ended before it was one
}

// logins reads a server's logs in CSV form (manual, "Using CSV-Format Log Output") from where it has come to.
type logins struct {
	dir  string
	read map[string]int64 // file to the end of its last whole record
}

// mostAtOnce bounds what is read of a file at once. A record that is longer is passed over.
const mostAtOnce = 16 << 20

// next returns the logins since the last call that are not before since, in the order of each file.
func (l *logins) next(since time.Time) ([]login, error) {
	files, err := filepath.Glob(filepath.Join(l.dir, "*.csv"))
	if err != nil {
		return nil, err
	}
	if l.read == nil {
		l.read = map[string]int64{}
	}
	var all []login
	for _, file := range files {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return all, err
		}
		if l.read[file] > info.Size() { // begun anew
			l.read[file] = 0
		}
		if info.ModTime().Before(since.Add(-time.Minute)) {
			l.read[file] = info.Size()
		}
		for l.read[file] < info.Size() {
			found, n, err := readLogins(file, l.read[file])
			if err != nil {
				return all, err
			}
			if n == 0 {
				break // a record that is being written
			}
			l.read[file] += n
			for _, one := range found {
				if !one.at.Before(since) {
					all = append(all, one)
				}
			}
		}
	}
	return all, nil
}

// readLogins reads whole records from an offset, and says how many bytes they took.
func readLogins(file string, from int64) ([]login, int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, from, mostAtOnce))
	if err != nil {
		return nil, 0, err
	}
	whole := wholeRecords(text)
	if whole == 0 && len(text) == mostAtOnce {
		return nil, mostAtOnce, nil
	}
	return parseLogins(string(text[:whole])), int64(whole), nil
}

// wholeRecords returns the length of the records that are complete: line ends within quotes do not end one.
func wholeRecords(text []byte) int {
	end, quoted := 0, false
	for i, c := range text {
		switch {
		case c == '"':
			quoted = !quoted
		case c == '\n' && !quoted:
			end = i + 1
		}
	}
	return end
}

// The columns of a record.
const (
	columnTime        = 0
	columnRole        = 1
	columnDatabase    = 2
	columnPID         = 3
	columnClient      = 4
	columnSession     = 5
	columnSeverity    = 11
	columnState       = 12
	columnMessage     = 13
	columnApplication = 22
	columns           = 23 // that all versions have
)

// parseLogins finds logins, and sessions that were refused after theirs, in records. What cannot be read is passed over: it is no record of the server's.
func parseLogins(text string) []login {
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord, r.ReuseRecord, r.LazyQuotes = -1, true, true
	var all []login
	for {
		record, err := r.Read()
		if err == io.EOF {
			return all
		}
		if err != nil || len(record) < columns {
			if err != nil && !errors.Is(err, csv.ErrFieldCount) {
				var parse *csv.ParseError
				if !errors.As(err, &parse) {
					return all
				}
			}
			continue
		}
		role, database := record[columnRole], record[columnDatabase]
		message, isLogin := strings.CutPrefix(record[columnMessage], "connection authorized: user="+role+" database="+database)
		isLogin = isLogin && record[columnSeverity] == "LOG"
		// An administrator's command ends a session that was one.
		isRefusal := record[columnSeverity] == "FATAL" && !strings.HasPrefix(record[columnState], "57P")
		at, err := time.Parse("2006-01-02 15:04:05.000 MST", record[columnTime])
		pid, pidErr := strconv.ParseUint(record[columnPID], 10, 32)
		if err != nil || pidErr != nil || !isLogin && !isRefusal {
			continue
		}
		one := login{at: at.UTC(), id: strings.Clone(record[columnSession]), pid: uint32(pid), role: strings.Clone(role), database: strings.Clone(database),
			client: host(record[columnClient]), refused: isRefusal}
		if application, found := strings.CutPrefix(message, " application_name="); found {
			application, _, _ = strings.Cut(application, " SSL enabled (")
			one.application = strings.Clone(application)
		}
		all = append(all, one)
	}
}

// host is a client's address without its port.
func host(client string) string {
	if i := strings.LastIndexByte(client, ':'); i > 0 {
		client = client[:i]
	}
	return strings.Clone(client)
}
