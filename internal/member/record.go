package member

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/twinspan/twinspan/internal/durable"
	"github.com/twinspan/twinspan/internal/problem"
)

// Member is one host's part of an instance, and where it is reached.
type Member struct {
	Name     string `json:"name"`
	Host     string `json:"host"`               // name or address by which the other members reach it
	Postgres int    `json:"postgres,omitempty"` // port of the server; 0 of a witness
	REST     int    `json:"rest,omitempty"`     // port of Patroni; 0 of a witness
	Client   int    `json:"client"`             // port of etcd for its clients
	Peer     int    `json:"peer"`               // port of etcd for other etcds
	Endpoint string `json:"endpoint,omitempty"` // where peers reach its agent, "" of a witness
	Place    string `json:"place"`              // host and directory, for people
	Witness  bool   `json:"witness,omitempty"`  // only votes
}

func (m Member) clientURL() string {
	return "https://" + net.JoinHostPort(m.Host, strconv.Itoa(m.Client))
}
func (m Member) peerURL() string { return "https://" + net.JoinHostPort(m.Host, strconv.Itoa(m.Peer)) }
func (m Member) restURL() string { return "https://" + net.JoinHostPort(m.Host, strconv.Itoa(m.REST)) }

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,39}$`)

// check says what is wrong with a member's description, which comes from another host.
func (m Member) check() error {
	switch {
	case !namePattern.MatchString(m.Name):
		return problem.New(problem.Invalid, "member_name", "%.60q is no name for a member", m.Name).WithHint("lower-case letters, digits, '_' and '-', beginning with a letter, at most 40")
	case m.Host == "" || len(m.Host) > 253 || !hostPattern.MatchString(m.Host):
		return problem.New(problem.Invalid, "member_address", "%.60q is no address of a member", m.Host).WithHint("give it an address that the other members reach: --endpoint HOST:PORT")
	}
	for _, port := range m.ports() {
		if port < 1 || port > 65535 {
			return problem.New(problem.Invalid, "member_address", "%d is no port", port).On(m.Name).WithHint("ports are 1 to 65535")
		}
	}
	return nil
}

func (m Member) ports() []int {
	if m.Witness {
		return []int{m.Client, m.Peer}
	}
	return []int{m.Postgres, m.REST, m.Client, m.Peer}
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.:-]*$`)

// Record is what a member's directory says of it and of the instance, in DIR/member/member.json, mode 0600: it holds the secrets that all members share.
type Record struct {
	Self      Member    `json:"self"`
	Founder   bool      `json:"founder"` // it made the instance: its etcd begins alone
	Scope     string    `json:"scope"`   // the instance's name among members: the agent's id
	Authority Authority `json:"authority"`
	Mine      Issued    `json:"mine"`
	Seal      []byte    `json:"seal"`      // key of what is shared through etcd, 32 bytes
	Major     int       `json:"major"`     // of the servers; 0 where it is not known yet
	Available bool      `json:"available"` // writes go on without a synchronous standby, from the first minute
	Others    []Member  `json:"others"`    // as they were when the record was last written
}

const recordDir = "member"

func recordPath(dir string) string { return filepath.Join(dir, recordDir, "member.json") }

// IsMember says whether the agent of a directory is a member of an instance.
func IsMember(dir string) bool {
	_, err := os.Stat(recordPath(dir))
	return err == nil
}

// Load reads the record of an agent's directory.
func Load(dir string) (Record, error) {
	var r Record
	text, err := os.ReadFile(recordPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return r, problem.New(problem.NotFound, "member_none", "the agent is no member of an instance with several servers").On(dir).
			WithHint("twinspan init --managed --tier business-critical makes one; twinspan member join makes a member")
	}
	if err != nil {
		return r, recordProblem(err, dir)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, recordProblem(err, dir)
	}
	if err := r.Self.check(); err != nil {
		return r, recordProblem(err, dir)
	}
	return r, nil
}

// Save writes the record whole.
func (r Record) Save(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return recordProblem(err, dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, recordDir), 0o700); err != nil {
		return recordProblem(err, dir)
	}
	return putFile(recordPath(dir), append(text, '\n'), 0o600)
}

func recordProblem(err error, dir string) error {
	return problem.Wrap(err, problem.Invalid, "member_broken", "the record of the member cannot be read or written").On(recordPath(dir)).
		WithHint("restore the agent's directory, or remove the member and join it again")
}

// putFile puts a file in place whole. Its error has the code dir_not_writable.
func putFile(path string, text []byte, mode fs.FileMode) error {
	if err := durable.Write(path, text, mode); err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "write %s", filepath.Base(path))
	}
	return nil
}
