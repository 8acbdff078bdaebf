// Package setup makes an agent: its directory, its identity, its tokens, its
// configuration. The configuration is written last, so a directory either is an
// agent's or can be set up again.
package setup

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/access"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/member"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/tier"
)

// Request says which agent to make.
type Request struct {
	Dir     config.Dir
	Name    string
	DSN     string // of an instance that someone else runs
	Managed bool
	Port    int      // of a managed instance; 0 for any
	Listen  string   // of a managed instance; empty for this machine alone
	Allow   []string // of a managed instance: networks that its clients come from
	// NoBackups makes a managed instance without backups.
	NoBackups bool
	// BackupKeyFile and BackupKeyCommand name where the operator keeps the key of the backups; one of them at most.
	BackupKeyFile, BackupKeyCommand string
	// Size is a managed instance's; what is zero of it follows from the rest, or is not declared.
	Size     tier.Size
	Password string // file that takes the superuser's password of a managed instance; empty to answer with it
	Endpoint string // HOST:PORT; empty for the default
	API      string // HOST:PORT; empty for none over TCP
	Connect  bool   // see that the DSN connects
	// Adopt is the id of the agent whose links are taken over, "any" for the one whose links
	// are found; empty for none.
	Adopt string
	Hooks []string // programs for events, as config.ParseHook takes them
	// Tier is general-purpose, one server, or business-critical, one of several members; empty for the former.
	Tier        string
	Member      string // name of the first member
	MemberPorts []int  // of its Patroni, its etcd for clients and for members; empty for the usual ones, or free ones
	Durability  string // strict or available; empty for strict
}

// connectTimeout bounds the attempt to connect.
const connectTimeout = 15 * time.Second

// Init makes the agent. A directory that holds the same agent already stays as
// it is and is no error; one that holds another is a conflict.
func Init(ctx context.Context, in Request) (api.Initialised, error) {
	wanted, err := configuration(in)
	if err != nil {
		return api.Initialised{}, err
	}
	if err := checkTier(in); err != nil {
		return api.Initialised{}, err
	}
	size, err := sizeOf(in)
	if err != nil {
		return api.Initialised{}, err
	}
	if in.Dir.Initialised() {
		return existing(in.Dir, wanted, in.Tier, size)
	}
	if err := reachable(ctx, in); err != nil {
		return api.Initialised{}, err
	}
	var plan adoption
	if in.Adopt != "" {
		if plan, err = planAdoption(ctx, in); err != nil {
			return api.Initialised{}, err
		}
	}
	if err := in.Dir.Create(); err != nil {
		return api.Initialised{}, err
	}
	identity, err := identityOf(in, plan.agent)
	if err != nil {
		return api.Initialised{}, err
	}
	name := ""
	if in.Tier == BusinessCritical {
		if name, err = found(ctx, in, &wanted, identity.AgentID()); err != nil {
			return api.Initialised{}, err
		}
	}
	out := describe(in.Dir, wanted, identity)
	out.Created, out.Member = true, name
	if in.Adopt != "" {
		if out.Adopted, err = adopt(ctx, in, plan); err != nil {
			return api.Initialised{}, err
		}
	}
	if in.API != "" {
		if out.Tokens, err = tokens(in); err != nil {
			return api.Initialised{}, err
		}
	}
	if err := password(in, &out); err != nil {
		return api.Initialised{}, err
	}
	if in.Managed && in.Tier != BusinessCritical {
		if err := size.Save(in.Dir.Size()); err != nil {
			return api.Initialised{}, err
		}
	}
	if err := config.WriteNew(in.Dir.File(), config.Render(wanted)); err != nil {
		return api.Initialised{}, err
	}
	return out, nil
}

// sizeOf is the size of a managed instance. One of several members has none yet.
func sizeOf(in Request) (tier.Size, error) {
	if in.Tier == BusinessCritical {
		if in.Size != (tier.Size{}) {
			return in.Size, problem.New(problem.Invalid, "instance_size_invalid", "an instance of the tier %s is given no size and no benefit", in.Tier).On(in.Tier).
				WithHint("leave --vcores, --memory, --storage and --benefit out; its servers share their machines")
		}
		return in.Size, nil
	}
	size := in.Size
	size.Tier = in.Tier
	size = size.Complete()
	return size, size.Check()
}

// configuration is what the file will say. It is read back, so that init never
// writes what serve would refuse.
func configuration(in Request) (config.Config, error) {
	c := config.Config{
		Name: in.Name,
		Postgres: config.Postgres{DSN: in.DSN, Managed: in.Managed, Port: in.Port, Listen: in.Listen, Allow: in.Allow, NoBackups: in.NoBackups,
			BackupKeyFile: in.BackupKeyFile, BackupKeyCommand: in.BackupKeyCommand},
		API: config.API{Listen: in.API},
	}
	if !config.ValidName(in.Name) {
		return c, problem.New(problem.Invalid, "name_invalid", "%q cannot be the name of an agent", in.Name).
			WithHint("use letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit")
	}
	if in.DSN != "" {
		if _, err := pg.ParseDSN(in.DSN); err != nil {
			return c, err
		}
	}
	for _, text := range in.Hooks {
		h, err := config.ParseHook(text)
		if err != nil {
			return c, err
		}
		c.Hooks = append(c.Hooks, h)
	}
	if in.Listen != "" && len(in.Allow) == 0 {
		in.Allow = []string{"all"}
		c.Postgres.Allow = in.Allow
	}
	endpoint := in.Endpoint
	if endpoint == "" {
		endpoint = config.DefaultEndpoint()
	}
	var err error
	if c.Endpoint, err = config.EndpointAt(endpoint); err != nil {
		return c, err
	}
	read, err := config.Parse(config.Render(c))
	if err != nil {
		return c, problem.Wrap(err, problem.Invalid, "parameters_invalid", "the parameters do not fit").
			WithHint("twinspan init --help describes them")
	}
	return read, nil
}

// existing compares what was asked for with what is there. Limits, hooks and
// certificates are left out: they are edited in the file.
func existing(dir config.Dir, wanted config.Config, kind string, size tier.Size) (api.Initialised, error) {
	found, err := dir.Load()
	if err != nil {
		return api.Initialised{}, err
	}
	name := ""
	if record, err := member.Load(dir.Path()); err == nil {
		name = record.Self.Name
		// Chosen when it was made.
		wanted.Postgres.NoBackups = found.Postgres.NoBackups
		wanted.Postgres.Port = cmp.Or(wanted.Postgres.Port, found.Postgres.Port)
	}
	same := found.Name == wanted.Name && samePostgres(found.Postgres, wanted.Postgres) &&
		found.Endpoint == wanted.Endpoint && found.API.Listen == wanted.API.Listen && (name != "") == (kind == BusinessCritical)
	if !same {
		return api.Initialised{}, problem.New(problem.Conflict, "already_initialised", "%s holds the agent %s already, with other parameters", dir.Path(), found.Name).
			WithHint("edit %s and restart the agent, or use another directory", dir.File())
	}
	have, err := tier.Load(dir.Size())
	if err != nil {
		return api.Initialised{}, err
	}
	if wanted.Postgres.Managed && kind != BusinessCritical && size != have {
		return api.Initialised{}, problem.New(problem.Conflict, "already_initialised", "%s holds the agent %s already, with an instance of another size", dir.Path(), found.Name).
			WithHint("twinspan instance set changes the size")
	}
	identity, err := peer.LoadIdentity(dir.Path())
	if err != nil {
		return api.Initialised{}, err
	}
	out := describe(dir, found, identity)
	out.Member = name
	return out, nil
}

func samePostgres(a, b config.Postgres) bool {
	return a.DSN == b.DSN && a.Managed == b.Managed && a.Port == b.Port && a.Listen == b.Listen && a.NoBackups == b.NoBackups &&
		a.BackupKeyFile == b.BackupKeyFile && a.BackupKeyCommand == b.BackupKeyCommand && slices.Equal(a.Allow, b.Allow)
}

// password chooses the superuser's password of a server that others reach, and hands it
// out once: in a file, or in the answer.
func password(in Request, out *api.Initialised) error {
	if !in.Managed || in.Listen == "" && in.Password == "" {
		return nil
	}
	server := instance.Server{Dir: in.Dir.Instance()}
	secret, err := server.MakePassword()
	if err != nil {
		return err
	}
	if in.Password == "" {
		out.Password = secret
		return nil
	}
	err = config.WriteNew(in.Password, []byte(secret+"\n"))
	if problem.CodeOf(err) == "already_initialised" {
		return problem.New(problem.Conflict, "file_exists", "%s exists", in.Password).On(in.Password).WithHint("name a file that is not there yet")
	}
	return err
}

// reachable sees that there is a server, or the programs to make one.
func reachable(ctx context.Context, in Request) error {
	if in.Managed {
		_, err := instance.FindBinaries(0)
		return err
	}
	if !in.Connect {
		return nil
	}
	dsn, err := pg.ParseDSN(in.DSN)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := dsn.Connect(ctx, pg.Session{Name: "init"})
	if err != nil {
		p := problem.As(err)
		if p.Hint == "" {
			p.Hint = "see that the server runs and listens there; --no-connect leaves the attempt out"
		}
		return p
	}
	return conn.Close(ctx)
}

// identityOf makes the identity, or takes the one that an init left which did
// not come to its end. agent is the id of the agent whose place is taken, "" for a new one.
func identityOf(in Request, agent string) (identity *peer.Identity, err error) {
	if agent == "" {
		identity, err = peer.CreateIdentity(in.Dir.Path(), in.Name)
	} else {
		identity, err = peer.AdoptIdentity(in.Dir.Path(), in.Name, agent)
	}
	if problem.CodeOf(err) != "identity_exists" {
		return identity, err
	}
	identity, err = peer.LoadIdentity(in.Dir.Path())
	if err != nil {
		return nil, err
	}
	if identity.Name() != in.Name {
		return nil, problem.New(problem.Conflict, "identity_exists", "%s holds the identity of an agent named %s", in.Dir.Path(), identity.Name()).
			WithHint("use that name, or another directory")
	}
	if agent != "" && identity.AgentID() != agent {
		return nil, problem.New(problem.Conflict, "identity_exists", "%s holds the identity of another agent than the one whose links are found", in.Dir.Path()).
			WithHint("use another directory")
	}
	return identity, nil
}

func tokens(in Request) (*api.APITokens, error) {
	host, _, err := net.SplitHostPort(in.API)
	if err != nil {
		return nil, problem.New(problem.Invalid, "api_invalid", "the address of the API is not HOST:PORT")
	}
	// An init that did not come to its end left tokens that nobody knows.
	if err := os.RemoveAll(in.Dir.Access()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, problem.Wrap(err, problem.Resource, "dir_not_writable", "clear the directory api")
	}
	made, err := access.Create(in.Dir.Access(), host)
	if err != nil {
		return nil, err
	}
	return &api.APITokens{Operator: made.Operator, Reader: made.Reader}, nil
}

func describe(dir config.Dir, c config.Config, identity *peer.Identity) api.Initialised {
	return api.Initialised{Name: c.Name, ID: identity.AgentID(), Fingerprint: identity.Fingerprint(), Dir: dir.Path(),
		Endpoint: c.Endpoint.Advertise, Managed: c.Postgres.Managed, API: c.API.Listen}
}
