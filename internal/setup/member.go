package setup

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/member"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
)

// BusinessCritical is the tier of an instance of several members.
const BusinessCritical = "business-critical"

// The ports of a member's programs, where nobody has them: those that their documentations use.
var memberPorts = []int{8008, 2379, 2380}

const serverPort = 5432

// newestMajor bounds the majors that are looked for.
const newestMajor = 30

// Join says which member to make of this host.
type Join struct {
	Dir      config.Dir
	Token    string // of twinspan member invite
	Member   string // its name; "" lets the inviting agent choose
	Endpoint string // HOST:PORT; empty for the default
	Port     int    // of its server; 0 for 5432, or a free one
	Ports    []int  // of Patroni, etcd for clients and etcd for members; empty for the usual ones, or free ones
	Listen   string // of its server, as at init; empty for what the inviting member has, where that is "*"
	Allow    []string
	// BackupKeyFile and BackupKeyCommand name where the operator keeps the key of the backups; one of them at most.
	BackupKeyFile, BackupKeyCommand string

	Witness bool
	Version string // of this program
}

// JoinInstance makes this host a member of the instance that a token is of. The configuration is written last, as by Init.
func JoinInstance(ctx context.Context, in Join) (api.Initialised, error) {
	if in.Dir.Initialised() {
		return api.Initialised{}, problem.New(problem.Conflict, "already_initialised", "%s holds an agent already", in.Dir.Path()).
			WithHint("a member has a directory of its own")
	}
	endpoint, err := config.EndpointAt(cmp.Or(in.Endpoint, config.DefaultEndpoint()))
	if err != nil {
		return api.Initialised{}, err
	}
	if _, err := member.Find(ctx, in.Witness); err != nil {
		return api.Initialised{}, err
	}
	if in.BackupKeyFile != "" && !filepath.IsAbs(in.BackupKeyFile) {
		return api.Initialised{}, problem.New(problem.Invalid, "parameters_invalid", "the file with the key of the backups is to be named by an absolute path").On(in.BackupKeyFile)
	}
	request := member.Request{OwnKey: in.BackupKeyFile != "" || in.BackupKeyCommand != ""}
	if request.Self, err = describeMember(in.Dir, in.Member, endpoint, in.Port, in.Ports, in.Witness); err != nil {
		return api.Initialised{}, err
	}
	for major := instance.Oldest; major < newestMajor && !in.Witness; major++ {
		if _, err := member.FindServer(major); err == nil {
			request.Majors = append(request.Majors, major)
		}
	}
	text, err := json.Marshal(request)
	if err != nil {
		return api.Initialised{}, err
	}
	if err := in.Dir.Create(); err != nil {
		return api.Initialised{}, err
	}
	reply, err := peer.JoinInstance(ctx, in.Token, in.Version, text)
	if err != nil {
		return api.Initialised{}, err
	}
	var answer member.Answer
	if err := json.Unmarshal(reply, &answer); err != nil {
		return api.Initialised{}, problem.New(problem.Incompatible, "peer_protocol", "the answer of the inviting agent cannot be understood").
			WithHint("run the same release of twinspan on all members")
	}
	c := config.Config{
		Name: answer.Name, Endpoint: endpoint,
		Postgres: config.Postgres{Managed: true, Port: request.Self.Postgres, Listen: in.Listen, Allow: in.Allow, NoBackups: answer.NoBackups || in.Witness},
	}
	if !c.Postgres.NoBackups {
		c.Postgres.BackupKeyFile, c.Postgres.BackupKeyCommand = in.BackupKeyFile, in.BackupKeyCommand
	}
	if in.Listen == "" && answer.Listen == "*" && !in.Witness {
		c.Postgres.Listen, c.Postgres.Allow = answer.Listen, answer.Allow
	}
	identity, err := joined(in, answer)
	if err != nil {
		return api.Initialised{}, err
	}
	if err := config.WriteNew(in.Dir.File(), config.Render(c)); err != nil {
		return api.Initialised{}, err
	}
	out := describe(in.Dir, c, identity)
	out.Created, out.Member = true, answer.Record.Self.Name
	return out, nil
}

// joined writes what the instance has given. A witness has an identity of its own: it is nobody's peer.
func joined(in Join, answer member.Answer) (*peer.Identity, error) {
	if err := answer.Record.Save(in.Dir.Path()); err != nil {
		return nil, err
	}
	if in.Witness {
		return peer.CreateIdentity(in.Dir.Path(), answer.Name)
	}
	if _, err := member.WriteShared(in.Dir.Path(), answer.Files); err != nil {
		return nil, err
	}
	server := instance.Server{Dir: in.Dir.Instance()}
	if err := server.SetPassword(answer.Password); err != nil {
		return nil, err
	}
	return peer.LoadIdentity(in.Dir.Path())
}

// describeMember is a member on this host. Ports that nobody named are the usual ones, or free ones where those are taken: so several members on one host need none.
func describeMember(dir config.Dir, name string, endpoint config.Endpoint, port int, ports []int, witness bool) (member.Member, error) {
	host, _, err := net.SplitHostPort(endpoint.Advertise)
	if err != nil {
		return member.Member{}, problem.New(problem.Invalid, "endpoint_invalid", "the endpoint %q is not HOST:PORT", endpoint.Advertise)
	}
	if len(ports) != 0 && len(ports) != len(memberPorts) {
		return member.Member{}, problem.New(problem.Invalid, "member_address", "%d ports are given where three are needed", len(ports)).
			WithHint("--member-ports PATRONI,ETCD,ETCD-PEERS, as 8008,2379,2380")
	}
	if len(ports) == 0 {
		for _, usual := range memberPorts {
			chosen, err := freePort(usual)
			if err != nil {
				return member.Member{}, err
			}
			ports = append(ports, chosen)
		}
	}
	if port == 0 && !witness {
		if port, err = freePort(serverPort); err != nil {
			return member.Member{}, err
		}
	}
	machine, _ := os.Hostname() // for people; without it the directory says enough
	m := member.Member{Name: name, Host: host, Postgres: port, REST: ports[0], Client: ports[1], Peer: ports[2], Endpoint: endpoint.Advertise, Place: machine + ":" + dir.Path()}
	if witness {
		m.Postgres, m.REST, m.Endpoint, m.Witness = 0, 0, "", true
	}
	return m, nil
}

// freePort is a port that nobody listens on, the usual one where that is so.
func freePort(usual int) (int, error) {
	for _, port := range []int{usual, 0} {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port, nil
	}
	return 0, problem.New(problem.Resource, "port_unavailable", "find a free port for the member")
}

// found makes the first member of an instance beside the agent that Init makes.
func found(ctx context.Context, in Request, c *config.Config, agent string) (name string, err error) {
	if _, err := member.Find(ctx, false); err != nil {
		return "", err
	}
	binaries, err := member.FindServer(0)
	if err != nil {
		return "", err
	}
	self, err := describeMember(in.Dir, cmp.Or(in.Member, "member1"), c.Endpoint, in.Port, in.MemberPorts, false)
	if err != nil {
		return "", err
	}
	c.Postgres.Port = self.Postgres
	r := member.Record{Self: self, Founder: true, Scope: agent, Major: binaries.Major, Available: in.Durability == member.Available, Seal: make([]byte, 32)}
	rand.Read(r.Seal) // never fails (crypto/rand)
	if r.Authority, err = member.NewAuthority(in.Name); err != nil {
		return "", err
	}
	if r.Mine, err = r.Authority.Issue(self.Name, self.Host); err != nil {
		return "", err
	}
	server := instance.Server{Dir: in.Dir.Instance()}
	_, err = server.MakePassword()
	return self.Name, errors.Join(err, r.Save(in.Dir.Path()))
}

// checkTier says what does not fit the tier.
func checkTier(in Request) error {
	switch {
	case !slices.Contains([]string{"", "general-purpose", BusinessCritical}, in.Tier):
		return problem.New(problem.Invalid, "parameters_invalid", "%.40q is no tier", in.Tier).WithHint("general-purpose or business-critical")
	case in.Tier != "" && !in.Managed:
		return problem.New(problem.Invalid, "parameters_invalid", "a tier is for a managed instance").WithHint("add --managed")
	case in.Tier != BusinessCritical && (in.Member != "" || len(in.MemberPorts) > 0 || in.Durability != ""):
		return problem.New(problem.Invalid, "parameters_invalid", "members are for an instance of the tier business-critical").WithHint("add --tier business-critical")
	case !slices.Contains([]string{"", member.Strict, member.Available}, in.Durability):
		return problem.New(problem.Invalid, "member_durability", "%.40q is no durability", in.Durability).WithHint("strict or available")
	}
	return nil
}
