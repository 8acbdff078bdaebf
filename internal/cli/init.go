package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/telemetry"
	"github.com/twinspan/twinspan/internal/terminal"
)

const initLong = `Make an agent in a directory: its key and certificate, and its configuration,
twinspan.toml, with every setting explained. Nothing is started; "twinspan serve"
does that.

The agent stands beside one PostgreSQL instance. With --postgres this is a server
that someone else runs, or an HA cluster when the connection string names several
hosts; init connects to it to see that the string is right (--no-connect leaves
that out). The role must be a superuser. A password in the string is kept in
twinspan.toml, which only its owner can read; leave it out where a .pgpass file or
peer authentication serves.

With --managed the agent itself creates the server at its first start, supervises
it and stops it. As root the server runs as the user postgres. It is reached from this
machine alone unless --listen names addresses: then it has TLS with a certificate of its
own, clients come from the networks of --allow with TLS and a password, and the
password of its superuser is shown this once, or written to --password-file.

A managed instance has a tier and, where --vcores, --memory and --storage declare one, a size: the settings of
the server follow from it. --vcores alone means 5.1 GB of memory for each. Without a size the
instance shares its machine. "twinspan instance set" changes it later.

The agent makes backups of a managed server from its first minute, with pgBackRest, into its
own directory (twinspan backup policy names another place), encrypted with a key that lies there
too, or with one of yours: --backup-key-file, --backup-key-command. Where pgBackRest is missing the
instance works, and the agent says that it has no backups.

With --tier business-critical the instance has several members, each on a host of its own: this
one is the first, and "twinspan member invite" here and "twinspan member join" on other hosts bring
the others. Each runs a server, under Patroni 4.0 or newer, and an etcd 3.5 or newer, which are to be installed. Commits
wait for a standby; --durability available lets them go on where there is none.

--endpoint is the address that peers are told, port 5022 of this machine by default.
Of two peers only one needs to reach the other.

--api also serves the REST interface over TCP, with TLS. Two tokens are printed, one
that may do everything and one that may look; they are shown this once.

With --adopt the agent takes the place of one whose directory is lost, beside the same
server: it takes over the links that it finds there, with a key of its own. --postgres must be a
superuser's, or the role of the agent of before. While somebody works the links it is refused; where
links of several agents are there, --adopt=AGENT-ID says whose. Nothing goes on before the operator
of each peer has agreed to the new key, with "twinspan peer trust" there; then the links go on
where they were.

Doing it again with the same parameters changes nothing and succeeds; with others it
is refused.`

func (a *app) initCommand() *cobra.Command {
	in := InitRequest{}
	noConnect := false
	cmd := &cobra.Command{
		Use:     "init --dir DIR --name NAME (--postgres DSN | --managed)",
		Short:   "Make an agent in a directory",
		Long:    initLong,
		GroupID: "agent",
		Example: `  twinspan init --dir /var/lib/twinspan --name a --postgres 'postgres://link_agent@db1/postgres' --endpoint db1.example.com:5022
  twinspan init --dir ~/twin --name b --managed --port 5433
  twinspan init --dir /var/lib/twinspan/c --name c --managed --tier general-purpose --vcores 2 --memory 8GB --storage 100GB
  twinspan init --dir /var/lib/twinspan/b2 --name b --postgres 'host=db2 user=postgres' --endpoint db2.example.com:5022 --adopt`,
		Args: cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			dir, err := a.dir()
			if err != nil {
				return err
			}
			in.Dir, in.Connect = dir, !noConnect
			made, err := a.deps.Init(cmd.Context(), in)
			if err != nil {
				return err
			}
			if !made.Created {
				a.say("The agent %s was made with the same parameters before; nothing has changed.", made.Name)
			}
			return a.answer(made, func(w io.Writer) {
				fmt.Fprintf(w, "agent        %s\ndirectory    %s\nendpoint     %s\nfingerprint  %s\n", made.Name, made.Dir, made.Endpoint, made.Fingerprint)
				memberLine(w, made)
				adopted(w, made)
				if made.Tokens != nil {
					fmt.Fprintf(w, "api          https://%s\noperator     %s\nreader       %s\n", made.API, made.Tokens.Operator, made.Tokens.Reader)
				}
				if made.Password != "" {
					fmt.Fprintf(w, "superuser    postgres\npassword     %s\n", made.Password)
				}
				a.say("Start it with: twinspan serve --dir %s", terminal.Quoted(made.Dir))
				a.sayAdopted(made)
			})
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&in.Name, "name", "", "`name` of the agent, as its peers will know it")
	flags.StringVar(&in.DSN, "postgres", "", "connection string (`dsn`) of the instance, a URL or key=value")
	flags.BoolVar(&in.Managed, "managed", false, "the agent runs the server itself")
	flags.IntVar(&in.Port, "port", 0, "`port` of the managed server; a free one is chosen without it")
	flags.StringVar(&in.Listen, "listen", "", "`addresses` at which the managed server listens for other machines, with TLS; * for all")
	flags.StringSliceVar(&in.Allow, "allow", nil, "with --listen, `networks` that clients come from, as 10.0.0.0/8 (default all)")
	sizeFlags(flags, &in.Size)
	flags.BoolVar(&in.NoBackups, "no-backups", false, "the agent makes no backups of the managed server")
	flags.StringVar(&in.BackupKeyFile, "backup-key-file", "", "`file` with the key of the backups, in place of one that the agent makes")
	flags.StringVar(&in.BackupKeyCommand, "backup-key-command", "", "`command` for the shell that prints the key of the backups, as one that asks a key service")
	flags.StringVar(&in.Password, "password-file", "", "`file` that is made for the superuser's password, in place of showing it")
	flags.StringVar(&in.Tier, "tier", "", "`tier` of the instance: general-purpose (default) or business-critical")
	flags.StringVar(&in.Member, "member", "", "`name` of the first member (default member1)")
	flags.IntSliceVar(&in.MemberPorts, "member-ports", nil, "`ports` of Patroni, etcd, and etcd for members (default 8008,2379,2380 or free ones)")
	flags.StringVar(&in.Durability, "durability", "", "`how`: strict (default), or available: commits go on where there is no standby")
	flags.StringVar(&in.Endpoint, "endpoint", "", "`host:port` at which peers reach the agent (default: port 5022 of this machine)")
	flags.StringVar(&in.API, "api", "", "`host:port` at which the REST interface is served too, with TLS and tokens")
	flags.StringVar(&in.Adopt, "adopt", "", "take over the links beside the server, of the one `agent` whose they are, or the one of this id")
	flags.Lookup("adopt").NoOptDefVal = "any"
	flags.StringArrayVar(&in.Hooks, "hook", nil, "program to run for events, as `kind,kind=program`; see docs/operating.md; may be given again")
	flags.BoolVar(&noConnect, "no-connect", false, "do not try the connection string")
	a.completeSize(cmd)
	cmd.MarkFlagRequired("name")
	cmd.MarkFlagsMutuallyExclusive("postgres", "managed")
	cmd.MarkFlagsOneRequired("postgres", "managed")
	cmd.MarkFlagsMutuallyExclusive("adopt", "no-connect")
	cmd.MarkFlagsMutuallyExclusive("no-backups", "backup-key-file", "backup-key-command")
	for _, flag := range []string{"port", "listen", "allow", "no-backups", "backup-key-file", "backup-key-command", "password-file", "tier", "vcores", "memory", "storage", "benefit", "member", "member-ports", "durability"} {
		cmd.MarkFlagsMutuallyExclusive("postgres", flag)
	}
	return cmd
}

// adopted says what an agent took over.
func adopted(w io.Writer, made api.Initialised) {
	if made.Adopted == nil {
		return
	}
	for _, l := range made.Adopted.Links {
		fmt.Fprintf(w, "took over    %s, %s in database %s, peer %s\n", l.Name, l.Role, l.Database, l.Peer)
	}
	for _, p := range made.Adopted.Passed {
		fmt.Fprintf(w, "passed by    database %s%s: %s\n", p.Database, of(p.Link), p.Why)
	}
}

func of(link string) string {
	if link == "" {
		return ""
	}
	return ", link " + link
}

// sayAdopted says what is left to do before links that were taken over go on.
func (a *app) sayAdopted(made api.Initialised) {
	if made.Adopted == nil {
		return
	}
	for _, p := range made.Adopted.Peers {
		if !p.Known {
			a.say("Nothing is known of the key of peer %[1]s: pair the two again, under that name: twinspan peer add %[1]s --cert FILE", p.Name)
		}
		a.say("The links with peer %s go on once its operator agrees, at %s, by the name that this agent has there: twinspan peer trust %s --key %s", p.Name, dash(p.Endpoint), made.Name, made.Fingerprint)
	}
	a.say("Read the fingerprint out to them by another way, such as a telephone.")
}

const serveLong = `Run the agent of a directory, in the foreground, until SIGINT or SIGTERM. A second
signal ends it at once. Ending it, in whatever way, loses nothing: links go on where
they were when the agent is started again.

One agent runs in a directory at a time. It logs to standard error, one line for
each event that matters.`

// staysAtHangup keeps an agent running whose terminal or login session ends, and says what
// a SIGHUP does elsewhere and not here, until the function that it returns is called.
func staysAtHangup(log *slog.Logger) (stop func()) {
	hangups, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		defer close(done)
		for range hangups {
			log.Info("SIGHUP: the agent goes on; its configuration is read when it starts")
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-done
	}
}

func (a *app) serveCommand() *cobra.Command {
	var format, level string
	cmd := &cobra.Command{
		Use:     "serve --dir DIR",
		Short:   "Run the agent",
		Long:    serveLong,
		GroupID: "agent",
		Example: `  twinspan serve --dir /var/lib/twinspan
  twinspan serve --dir /var/lib/twinspan --log-format json 2>> /var/log/twinspan.json`,
		Args: cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			dir, err := a.dir()
			if err == nil {
				err = initialised(dir)
			}
			if err != nil {
				return err
			}
			log, err := telemetry.New(a.errs, telemetry.Options{Format: telemetry.Format(format), Level: level})
			if err != nil {
				return err
			}
			defer staysAtHangup(log)()
			return a.deps.Serve(cmd.Context(), dir, log)
		}),
	}
	cmd.Flags().StringVar(&format, "log-format", "text", "`form` of the log: text or json")
	cmd.Flags().StringVar(&level, "log-level", "info", "least `level` that is logged: debug, info, warn or error")
	return cmd
}
