package instance

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/durable"
	"github.com/twinspan/twinspan/internal/problem"
)

// ConfigFile, in the data directory, is written by every Run and included by postgresql.conf, so
// that ALTER SYSTEM, whose file is read last, still has the final word.
const ConfigFile = "twinspan.conf"

// links is how many links one instance is made for, with a few to spare.
const links = 120

// defaults are the settings of a managed server of a major version.
func defaults(major int) map[string]string {
	count := strconv.Itoa(links)
	settings := map[string]string{
		// Both sides of a link decode and are decoded: either may be the primary.
		"wal_level":             "logical",
		"max_replication_slots": count,
		"max_wal_senders":       count,
		// A link has a handful of sessions; until 11 walsenders count as sessions.
		"max_connections":           "300",
		"max_prepared_transactions": "64",
		"password_encryption":       "scram-sha-256",
		"shared_buffers":            strconv.FormatUint(sharedBuffers(memory())>>20, 10) + "MB",
		// A week of logs, without anybody tending them.
		"logging_collector":        "on",
		"log_directory":            "log",
		"log_filename":             "postgresql-%a.log",
		"log_rotation_age":         "1d",
		"log_rotation_size":        "0",
		"log_truncate_on_rotation": "on",
		"log_line_prefix":          "%m [%p] %q%u@%d %a ",
		"lc_messages":              "C",
	}
	if major >= 18 {
		// Until 17 max_replication_slots bounds the origins too.
		settings["max_active_replication_origins"] = count
	}
	return settings
}

// sharedBuffers is an eighth of the machine's memory, at least 128 MB and at
// most 1 GB: an instance shares its machine until somebody says otherwise.
func sharedBuffers(memory uint64) uint64 {
	return min(max(memory/8, 128<<20), 1<<30)
}

var settingName = regexp.MustCompile(`^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$`)

// config renders the settings file.
func (s *Server) config() ([]byte, error) {
	settings := defaults(s.Binaries.Major)
	if s.TLS {
		settings["ssl"] = "on"
	}
	s.mu.Lock()
	maps.Copy(settings, s.Settings)
	s.mu.Unlock()
	var b bytes.Buffer
	b.WriteString("# Written by twinspan at each start; change settings with ALTER SYSTEM.\n")
	// Not settings, but a running server that differs in them is not taken over.
	fmt.Fprintf(&b, "# programs %q, listening on %q port %d, socket in %q\n", s.Binaries.Dir, s.listen(), s.port(), s.socketDir())
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := settings[name]
		if !settingName.MatchString(name) || strings.ContainsAny(value, "\n\r\x00") {
			return nil, problem.New(problem.Invalid, "settings_invalid", "the setting %q cannot be written to the server's configuration", name).On(name)
		}
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(value))
	}
	return b.Bytes(), nil
}

// writeConfig brings the settings file up to date and says whether it was
// different before.
func (s *Server) writeConfig(owner account, data string) (changed bool, err error) {
	text, err := s.config()
	if err != nil {
		return false, err
	}
	path := filepath.Join(data, ConfigFile)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return false, nil
	}
	return true, writeFile(owner, path, text)
}

// writeFile puts a file in place whole, readable by its owner only.
func writeFile(owner account, path string, text []byte) error {
	uid, gid := -1, -1
	if owner.change {
		uid, gid = owner.uid, owner.gid
	}
	return diskProblem(durable.WriteOwned(path, text, 0o600, uid, gid), path)
}

// serverArgs are the arguments of postgres: the data directory, and what no
// ALTER SYSTEM may change, for the agent must find its server.
func (s *Server) serverArgs() []string {
	args := []string{
		"-D", s.DataDir(),
		"-c", "port=" + strconv.Itoa(s.port()),
		"-c", "listen_addresses=" + s.listen(),
		"-c", "unix_socket_directories=",
	}
	if dir := s.socketDir(); dir != "" {
		// The value is a list; a quoted element may contain anything.
		args[len(args)-1] += `"` + strings.ReplaceAll(dir, `"`, `""`) + `"`
	}
	return args
}

// hba is pg_hba.conf: the socket's directory lets in only the server's own user
// and root, so who comes through it is trusted; TCP takes the password.
func (s *Server) hba() string {
	if s.HBA != "" {
		return s.HBA
	}
	return `# TYPE DATABASE USER ADDRESS METHOD
local all all trust
local replication all trust
host all all all scram-sha-256
host replication all all scram-sha-256
`
}

// HBAFor is a pg_hba.conf that lets clients in from this machine and, with TLS, from
// networks: addresses with a mask length, "all", "samenet" or "samehost".
func HBAFor(networks []string) string {
	var b strings.Builder
	b.WriteString(`# TYPE DATABASE USER ADDRESS METHOD
local all all trust
local replication all trust
host all all samehost scram-sha-256
host replication all samehost scram-sha-256
`)
	for _, network := range networks {
		fmt.Fprintf(&b, "hostssl all all %[1]s scram-sha-256\nhostssl replication all %[1]s scram-sha-256\n", network)
	}
	return b.String()
}
