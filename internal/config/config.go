//go:generate env TWINSPAN_GENERATE=1 go test . -count=1 -run TestSettingsAreDocumented

// Package config is an agent's directory and the one file in it that a person
// edits, twinspan.toml. The file is strict: a key that is not known is an error
// with its line, so that a slip of the pen is not a setting that silently does
// nothing.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/twinspan/twinspan/internal/problem"
)

// DefaultEndpointPort is where agents meet (DESIGN: the endpoint).
const DefaultEndpointPort = 5022

// Config is what twinspan.toml says, complete with defaults and valid.
type Config struct {
	Name     string
	Postgres Postgres
	Endpoint Endpoint
	API      API
	Limits   Limits
	Hooks    []Hook
}

// Postgres says which instance the agent stands beside: DSN for a server that
// someone else runs, Managed for one that the agent runs itself.
type Postgres struct {
	DSN     string // may hold a password: never log it
	Managed bool
	Port    int // of a managed server; 0 lets the agent choose a free one at its first start
	// Listen are the addresses at which a managed server listens, with TLS, as
	// listen_addresses has them; "" is this machine's alone, without.
	Listen string
	// Allow are the networks from which a managed server that is made lets clients in.
	Allow []string
	// NoBackups leaves a managed server without backups.
	NoBackups bool
	// BackupKeyFile, an absolute path, and BackupKeyCommand, for the shell, name where the operator keeps the key of the backups; one of them at most.
	// Without either the agent makes one.
	BackupKeyFile, BackupKeyCommand string
}

// OwnKey says whether the key of the backups is the operator's.
func (p Postgres) OwnKey() bool { return p.BackupKeyFile != "" || p.BackupKeyCommand != "" }

func (p Postgres) ownKeyName() string {
	if p.BackupKeyFile != "" {
		return "postgres.backup_key_file"
	}
	return "postgres.backup_key_command"
}

// Endpoint is where peers reach the agent.
type Endpoint struct {
	Listen    string // host:port; the host may be empty for all addresses
	Advertise string // host:port that peers are told
}

// API is the REST interface over TCP; with an empty Listen there is none, and
// the Unix socket in the directory is the only way in.
type API struct {
	Listen      string // host:port
	Certificate string // path of a PEM file; empty for the one that init made
	Key         string // path of a PEM file
}

// Limits bound what the agent uses.
type Limits struct {
	SeedWorkers int // chunks copied at once for a link; 0 for seed.DefaultWorkers
	SpillMB     int // disk for large transactions that are not finished, in MiB; 0 means the default
}

// mostSpillMB is far more than any disk has.
const mostSpillMB = 100_000_000

// DefaultEndpoint is what is listened on when a file names nothing.
func DefaultEndpoint() string { return ":" + strconv.Itoa(DefaultEndpointPort) }

// file mirrors the TOML. Pointers tell what is absent from what is zero.
type file struct {
	Name     string `toml:"name"`
	Postgres struct {
		DSN     string   `toml:"dsn"`
		Managed bool     `toml:"managed"`
		Port    *int     `toml:"port"`
		Listen  string   `toml:"listen"`
		Allow   []string `toml:"allow"`
		Backups *bool    `toml:"backups"`

		BackupKeyFile    string `toml:"backup_key_file"`
		BackupKeyCommand string `toml:"backup_key_command"`
	} `toml:"postgres"`
	Endpoint struct {
		Listen    string `toml:"listen"`
		Advertise string `toml:"advertise"`
	} `toml:"endpoint"`
	API struct {
		Listen      string `toml:"listen"`
		Certificate string `toml:"certificate"`
		Key         string `toml:"key"`
	} `toml:"api"`
	Limits struct {
		SeedWorkers int `toml:"seed_workers"`
		SpillMB     int `toml:"spill_mb"`
	} `toml:"limits"`
	Hooks []hookText `toml:"hooks"`
}

// Load reads and validates the file. Its errors carry the path and, where there
// is one, the line; they never quote a value that may be a secret.
func Load(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return Config{}, problem.New(problem.NotFound, "not_initialised", "there is no agent in this directory: %s is missing", path).
				WithHint("create one with: twinspan init --dir DIR --name NAME --postgres DSN")
		}
		return Config{}, problem.Wrap(err, problem.Invalid, "config_unreadable", "read the configuration")
	}
	c, err := Parse(text)
	if err != nil {
		var bad *lineError
		if errors.As(err, &bad) && bad.line > 0 {
			return Config{}, invalid("%s:%d: %s", path, bad.line, bad.text)
		}
		return Config{}, invalid("%s: %s", path, err)
	}
	return c, nil
}

func invalid(text string, args ...any) error {
	return problem.New(problem.Invalid, "config_invalid", text, args...).
		WithHint("every key is described in the file that init writes; twinspan init --help lists the defaults")
}

// lineError is something wrong with the file, at a line or, when line is 0, as a whole.
type lineError struct {
	line int
	text string
}

func (e *lineError) Error() string {
	if e.line == 0 {
		return e.text
	}
	return fmt.Sprintf("line %d: %s", e.line, e.text)
}

// Parse reads and validates the text of a file.
func Parse(text []byte) (Config, error) {
	var f file
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&f); err != nil {
		return Config{}, decodeError(err)
	}
	c := Config{
		Name:     f.Name,
		Postgres: Postgres{DSN: f.Postgres.DSN, Managed: f.Postgres.Managed, Listen: f.Postgres.Listen, Allow: f.Postgres.Allow},
		Endpoint: Endpoint{Listen: f.Endpoint.Listen, Advertise: f.Endpoint.Advertise},
		API:      API{Listen: f.API.Listen, Certificate: f.API.Certificate, Key: f.API.Key},
		Limits:   Limits{SeedWorkers: f.Limits.SeedWorkers, SpillMB: f.Limits.SpillMB},
	}
	c.Postgres.BackupKeyFile, c.Postgres.BackupKeyCommand = f.Postgres.BackupKeyFile, f.Postgres.BackupKeyCommand
	if f.Postgres.Port != nil {
		if c.Postgres.Port = *f.Postgres.Port; !c.Postgres.Managed {
			return Config{}, at(text, "postgres.port", "postgres.port is for a managed server; the port of another is part of dsn")
		}
	}
	if f.Postgres.Backups != nil {
		if c.Postgres.NoBackups = !*f.Postgres.Backups; !c.Postgres.Managed {
			return Config{}, at(text, "postgres.backups", "postgres.backups is for a managed server; another's backups are made by whoever runs it")
		}
	}
	if c.Endpoint.Listen == "" {
		c.Endpoint.Listen = DefaultEndpoint()
	}
	if err := c.validate(text); err != nil {
		return Config{}, err
	}
	var err error
	if c.Hooks, err = readHooks(text, f.Hooks); err != nil {
		return Config{}, err
	}
	if c.Endpoint.Advertise == "" {
		c.Endpoint.Advertise = advertised(c.Endpoint.Listen)
	}
	return c, nil
}

// decodeError gives the first fault of the file with its line. The library's own
// text may quote the value, which may be a connection string, so only unknown
// keys, which are names, are repeated.
func decodeError(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		first := strict.Errors[0]
		row, _ := first.Position()
		return &lineError{row, fmt.Sprintf("unknown key %q", strings.Join(first.Key(), "."))}
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, _ := decode.Position()
		if key := strings.Join(decode.Key(), "."); key != "" {
			return &lineError{row, fmt.Sprintf("the value of %s is of the wrong type, stands twice, or is not written as TOML wants it", key)}
		}
		return &lineError{row, "not written as TOML wants it: strings stand in quotes, a key stands once, a table's name in brackets"}
	}
	return &lineError{0, "not a TOML file"}
}

// listenable says whether a text can be listen_addresses.
func listenable(list string) bool {
	for _, one := range strings.Split(list, ",") {
		one = strings.TrimSpace(one)
		if one != "*" && net.ParseIP(one) == nil && !hostName.MatchString(one) {
			return false
		}
	}
	return true
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

// network says whether a text names addresses as pg_hba.conf takes them.
func network(n string) bool {
	if n == "all" || n == "samenet" || n == "samehost" {
		return true
	}
	_, _, err := net.ParseCIDR(n)
	return err == nil
}

func (c *Config) validate(text []byte) error {
	switch {
	case c.Name == "":
		return &lineError{0, "name is missing"}
	case !ValidName(c.Name):
		return at(text, "name", "name may hold letters, digits, '.', '_' and '-', begins with a letter or digit, and has at most 63 characters")
	case c.Postgres.DSN == "" && !c.Postgres.Managed:
		return &lineError{0, "postgres.dsn is missing (or set postgres.managed = true)"}
	case c.Postgres.DSN != "" && c.Postgres.Managed:
		return at(text, "postgres.managed", "postgres.dsn and postgres.managed = true exclude each other")
	case c.Postgres.Port < 0 || c.Postgres.Port > 65535:
		return at(text, "postgres.port", "postgres.port is not between 1 and 65535")
	case c.Postgres.Listen != "" && !c.Postgres.Managed:
		return at(text, "postgres.listen", "postgres.listen is for a managed server")
	case c.Postgres.Listen != "" && !listenable(c.Postgres.Listen):
		return at(text, "postgres.listen", "postgres.listen is a list of addresses or names of this machine, parted by commas, or *")
	case len(c.Postgres.Allow) > 0 && c.Postgres.Listen == "":
		return at(text, "postgres.allow", "postgres.allow does nothing without postgres.listen")
	case slices.ContainsFunc(c.Postgres.Allow, func(n string) bool { return !network(n) }):
		return at(text, "postgres.allow", "postgres.allow lists networks such as 10.0.0.0/8, or all, samenet, samehost")
	case c.Postgres.BackupKeyFile != "" && !filepath.IsAbs(c.Postgres.BackupKeyFile):
		return at(text, "postgres.backup_key_file", "postgres.backup_key_file is not an absolute path")
	case c.Postgres.BackupKeyFile != "" && c.Postgres.BackupKeyCommand != "":
		return at(text, "postgres.backup_key_command", "postgres.backup_key_file and postgres.backup_key_command exclude each other")
	case c.Postgres.OwnKey() && (!c.Postgres.Managed || c.Postgres.NoBackups):
		return at(text, c.Postgres.ownKeyName(), c.Postgres.ownKeyName()+" is for a managed server of which the agent makes backups")
	case (c.API.Certificate == "") != (c.API.Key == ""):
		return at(text, "api.certificate", "api.certificate and api.key are given together")
	case c.API.Certificate != "" && c.API.Listen == "":
		return at(text, "api.certificate", "api.certificate does nothing without api.listen")
	case c.Limits.SeedWorkers < 0 || c.Limits.SeedWorkers > 64:
		return at(text, "limits.seed_workers", "limits.seed_workers is not between 0 and 64")
	case c.Limits.SpillMB < 0 || c.Limits.SpillMB > mostSpillMB:
		return at(text, "limits.spill_mb", "limits.spill_mb is not between 0 and 100000000")
	}
	if err := address(c.Endpoint.Listen, true); err != nil {
		return at(text, "endpoint.listen", "endpoint.listen "+err.Error())
	}
	if c.Endpoint.Advertise != "" {
		if err := address(c.Endpoint.Advertise, false); err != nil {
			return at(text, "endpoint.advertise", "endpoint.advertise "+err.Error())
		}
	}
	if c.API.Listen != "" {
		if err := address(c.API.Listen, true); err != nil {
			return at(text, "api.listen", "api.listen "+err.Error())
		}
	}
	return nil
}

// at finds the line of a key, given as table.key, so that errors of meaning have
// one too.
func at(text []byte, key, what string) error { return atNth(text, key, 0, what) }

// atNth is at in one of several tables of a name, counted from 0. A key that is missing there
// is at the table.
func atNth(text []byte, key string, n int, what string) error {
	table, seen, head := "", -1, 0
	of, _, _ := strings.Cut(key, ".")
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			if table = strings.Trim(line, "[] \t") + "."; strings.HasPrefix(line, "[["+of+"]]") {
				if seen++; seen == n {
					head = i + 1
				}
			}
		}
		name, _, found := strings.Cut(line, "=")
		if found && table+strings.TrimSpace(name) == key && (seen < 0 || seen == n) {
			return &lineError{i + 1, what}
		}
	}
	return &lineError{head, what}
}

// ValidName says whether a name of an agent is one: it becomes part of file
// names, of URLs and of messages.
func ValidName(name string) bool {
	if name == "" || len(name) > 63 {
		return false
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || r != '.' && r != '_' && r != '-') {
			return false
		}
	}
	return true
}

// address checks host:port; the host of a listener may be empty.
func address(s string, listener bool) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("is not host:port")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return errors.New("has no port between 1 and 65535")
	}
	if host == "" && !listener {
		return errors.New("has no host")
	}
	if strings.ContainsAny(host, " \t\n/@") {
		return errors.New("has a host that is no name and no address")
	}
	return nil
}

// advertised is what peers are told when nothing is configured: the listener's
// own host when it names one, else this machine's name.
func advertised(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil || host == "" {
			host = "localhost"
		}
	}
	return net.JoinHostPort(host, port)
}

// EndpointAt turns the address given to init --endpoint into the endpoint: peers
// are told exactly that address; it is also listened on when it is an address of
// this machine, and else all addresses are, for a name may lead through a
// gateway.
func EndpointAt(s string) (Endpoint, error) {
	if err := address(s, true); err != nil {
		return Endpoint{}, problem.New(problem.Invalid, "endpoint_invalid", "the endpoint %q %s", s, err).
			WithHint("write it as HOST:PORT, for instance db1.example.com:%d", DefaultEndpointPort)
	}
	host, port, _ := net.SplitHostPort(s)
	if host == "" || net.ParseIP(host) != nil || host == "localhost" {
		return Endpoint{Listen: s, Advertise: advertised(s)}, nil
	}
	return Endpoint{Listen: ":" + port, Advertise: s}, nil
}
