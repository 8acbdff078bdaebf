package instance

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
)

// symptom maps what a server writes before it gives up to a problem.
type symptom struct {
	pattern *regexp.Regexp
	make    func(s *Server) *problem.Error
}

func symptoms() []symptom {
	return []symptom{
		{regexp.MustCompile(`Address already in use`), func(s *Server) *problem.Error {
			return problem.New(problem.Conflict, "port_in_use", "port %d is in use", s.port()).
				WithHint("stop what listens there, or give the instance another port")
		}},
		{regexp.MustCompile(`Cannot assign requested address|could not translate host name|could not create any TCP/IP sockets`), func(s *Server) *problem.Error {
			return problem.New(problem.Invalid, "listen_address_invalid", "the server cannot listen on %s", s.listen()).
				WithHint("name an address of this machine")
		}},
		{regexp.MustCompile(`No space left on device|Disk quota exceeded`), func(s *Server) *problem.Error {
			return diskFull(s.DataDir())
		}},
		{regexp.MustCompile(`database files are incompatible with server`), func(s *Server) *problem.Error {
			return problem.New(problem.Incompatible, "data_version_mismatch", "the data directory was not made by this build of PostgreSQL").On(s.DataDir()).
				WithHint("use the programs that made it")
		}},
		{regexp.MustCompile(`shared memory.*(Cannot allocate memory|Invalid argument)|could not map anonymous shared memory|could not resize shared memory`), func(*Server) *problem.Error {
			return problem.New(problem.Resource, "memory_short", "the server did not get its shared memory").
				WithHint("lower shared_buffers, or give the machine more memory")
		}},
		{regexp.MustCompile(`pre-existing shared memory block|lock file "[^"]*" already exists`), func(s *Server) *problem.Error {
			return problem.New(problem.Conflict, "data_dir_in_use", "processes of another server still use the data directory").On(s.DataDir()).
				WithHint("end them, then start again; never remove postmaster.pid while they run")
		}},
		{regexp.MustCompile(`unrecognized configuration parameter|invalid value for parameter|contains errors|is outside the valid range`), func(*Server) *problem.Error {
			return problem.New(problem.Invalid, "settings_invalid", "the server refuses its configuration").
				WithHint("its log names the setting; correct it, or remove its line from postgresql.auto.conf")
		}},
		{regexp.MustCompile(`has invalid permissions|has wrong ownership|Permission denied`), func(s *Server) *problem.Error {
			return problem.New(problem.Unauthorised, "data_dir_permissions", "the server's user may not use the data directory").On(s.DataDir()).
				WithHint("give the directory to the server's user, with mode 0700")
		}},
		{regexp.MustCompile(`could not locate a valid checkpoint record|invalid primary checkpoint record|could not locate required checkpoint record`), func(s *Server) *problem.Error {
			return problem.New(problem.Diverged, "data_damaged", "the data directory is damaged: no valid checkpoint").On(s.DataDir()).
				WithHint("restore the instance from its backup")
		}},
	}
}

func diskFull(path string) *problem.Error {
	return problem.New(problem.Resource, "disk_full", "the disk of the server's directory is full").On(path).
		WithHint("free space there, then start again")
}

// diagnose finds the first known symptom in a server's last words, nil if none.
func diagnose(text string, s *Server) *problem.Error {
	for _, symptom := range symptoms() {
		if symptom.pattern.MatchString(text) {
			return symptom.make(s)
		}
	}
	return nil
}

// lastLine returns the last line that contains one of the markers, from there
// on. Other lines are left out, for they may quote statements and their values.
func lastLine(text string, markers ...string) string {
	found := "no reason given"
	for line := range strings.Lines(text) {
		for _, m := range markers {
			if i := strings.Index(line, m); i >= 0 {
				found = strings.TrimSpace(line[i:])
			}
		}
	}
	return found
}

// logMark remembers where the server's logs ended before a start.
type logMark map[string]int64

func (s *Server) logFiles() []string {
	// The only error is a malformed pattern.
	files, _ := filepath.Glob(filepath.Join(s.DataDir(), "log", "*.log"))
	return append(files, s.LogFile())
}

// LogFile holds what the server says before its own log begins, and all that it says where it has no logger (logging_collector).
func (s *Server) LogFile() string { return filepath.Join(s.Dir, "server.log") }

func (s *Server) markLogs() logMark {
	mark := logMark{}
	for _, f := range s.logFiles() {
		if info, err := os.Stat(f); err == nil {
			mark[f] = info.Size()
		}
	}
	return mark
}

// lastWords returns the ends of what was logged since the mark.
func (s *Server) lastWords(mark logMark) string {
	const most = 16 << 10
	var b strings.Builder
	for _, path := range s.logFiles() {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		from := mark[path]
		if info, err := f.Stat(); err == nil {
			if from > info.Size() {
				from = 0 // truncated since
			}
			from = max(from, info.Size()-most)
		}
		if text, err := io.ReadAll(io.NewSectionReader(f, from, most)); err == nil {
			b.Write(text)
		}
		f.Close()
	}
	return b.String()
}
