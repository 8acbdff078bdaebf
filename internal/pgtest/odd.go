package pgtest

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// SeedEnv names the environment variable with the seed of everything that is drawn for a
// run of tests. Without it every run has another one, which is printed with each failure.
const SeedEnv = "TWINSPAN_TEST_SEED"

// OddEnv names the environment variable that says how many of the servers that may have
// odd settings get them: "never" (the default), "half", "always".
const OddEnv = "TWINSPAN_TEST_ODD"

// Seed is the seed of this run.
var Seed = sync.OnceValue(func() uint64 {
	if text := os.Getenv(SeedEnv); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			panic(SeedEnv + " is not a number: " + text)
		}
		return seed
	}
	return uint64(time.Now().UnixNano())
})

// draws returns random numbers for one purpose of one test: the same ones whatever else
// runs, and in whatever order.
func draws(purpose string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(purpose))
	return rand.New(rand.NewPCG(Seed(), h.Sum64()))
}

// MayBeOdd gives as many of the servers as OddEnv says settings as some users have them: each of some of
// those in oddities at the server, the database, the role or the session of the agent.
// What sessions of this package's own (Exec, Query, Conn and the like) show stays the same.
func MayBeOdd() Option { return func(o *options) { o.mayBeOdd = true } }

// The levels at which a setting is made.
const (
	atServer = iota
	atDatabase
	atRole
	atSession
	levels
)

// oddity is a setting with values that users choose. One that would make an application
// fail by itself (and pgx refuses sessions with backslashes in strings) is for the agent
// alone: at its role or its session.
type oddity struct {
	name   string
	values []string
	agent  bool
}

var oddities = []oddity{
	{name: "extra_float_digits", values: []string{"-15", "0", "3"}},
	{name: "bytea_output", values: []string{"escape"}},
	// In lower case, as a server's configuration here has them.
	{name: "datestyle", values: []string{"SQL, DMY", "German, DMY", "Postgres, MDY"}},
	{name: "intervalstyle", values: []string{"sql_standard", "iso_8601", "postgres_verbose"}},
	{name: "timezone", values: []string{"Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"}},
	{name: "lc_monetary", values: []string{"POSIX"}},
	{name: "lc_numeric", values: []string{"POSIX"}},
	{name: "lc_time", values: []string{"POSIX"}},
	{name: "quote_all_identifiers", values: []string{"on"}},
	{name: "transform_null_equals", values: []string{"on"}},
	{name: "search_path", values: []string{"nowhere, public", "public, pg_catalog"}},
	{name: "statement_timeout", values: []string{"1s", "3s"}, agent: true},
	{name: "lock_timeout", values: []string{"100ms", "1s"}, agent: true},
	{name: "idle_in_transaction_session_timeout", values: []string{"1s", "3s"}, agent: true},
	{name: "default_transaction_isolation", values: []string{"repeatable read", "serializable"}, agent: true},
	{name: "standard_conforming_strings", values: []string{"off"}, agent: true},
	{name: "exit_on_error", values: []string{"on"}, agent: true},
}

// settled are the same settings as they are by default, for the sessions of this package.
var settled = map[string]string{
	"extra_float_digits": "1", "bytea_output": "hex", "datestyle": "ISO, MDY", "intervalstyle": "postgres", "timezone": "UTC",
	"lc_monetary": "C", "search_path": `"$user", public`, "quote_all_identifiers": "off", "transform_null_equals": "off",
}

// drawn are the settings of one server by level.
type drawn [levels]map[string]string

// draw draws the settings of a server.
func draw(r *rand.Rand) drawn {
	var d drawn
	switch os.Getenv(OddEnv) {
	case "always":
	case "half":
		if r.IntN(2) == 0 {
			return d
		}
	default:
		return d
	}
	for _, o := range oddities {
		value, level := o.values[r.IntN(len(o.values))], r.IntN(levels)
		if o.agent {
			level = atRole + r.IntN(2)
		}
		if r.IntN(5) < 2 {
			continue
		}
		if d[level] == nil {
			d[level] = map[string]string{}
		}
		d[level][o.name] = value
	}
	return d
}

func (d drawn) any() bool {
	return slices.ContainsFunc(d[:], func(m map[string]string) bool { return len(m) > 0 })
}

// String lists the settings for whoever reads a failure.
func (d drawn) String() string {
	var parts []string
	for level, name := range []string{"server", "database", "role " + AgentRole, "session of the agent"} {
		for _, setting := range slices.Sorted(maps.Keys(d[level])) {
			parts = append(parts, fmt.Sprintf("%s: %s = '%s'", name, setting, d[level][setting]))
		}
	}
	return strings.Join(parts, "; ")
}

// options is the level of the session as libpq's parameter of that name.
func (d drawn) options() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(d[atSession])) {
		parts = append(parts, "-c "+name+"="+strings.ReplaceAll(d[atSession][name], " ", `\ `))
	}
	return strings.Join(parts, " ")
}

// setRole makes the settings of the agent's role.
func (d drawn) setRole(ctx context.Context, conn *pgx.Conn) error {
	for name, value := range d[atRole] {
		if err := alter(ctx, conn, "ROLE "+AgentRole, name, value); err != nil {
			return err
		}
	}
	return nil
}

// setDatabase makes the settings of a database.
func (d drawn) setDatabase(ctx context.Context, conn *pgx.Conn, database string) error {
	for name, value := range d[atDatabase] {
		if err := alter(ctx, conn, "DATABASE "+sqlname.Quote(database), name, value); err != nil {
			return err
		}
	}
	return nil
}

func alter(ctx context.Context, conn *pgx.Conn, what, name, value string) error {
	literal := sqlname.Literal(value)
	if name == "search_path" { // a list of names and not one name
		literal = value
	}
	if _, err := conn.Exec(ctx, "ALTER "+what+" SET "+name+" = "+literal); err != nil {
		return fmt.Errorf("%s of %s: %w", name, what, err)
	}
	return nil
}

// oddPorts are the ports of servers with odd settings, for settle.
var oddPorts sync.Map

// settle keeps odd settings of a server out of a session of this package.
func settle(c *pgx.ConnConfig) {
	if _, odd := oddPorts.Load(int(c.Port)); !odd {
		return
	}
	for name, value := range settled {
		if _, set := c.RuntimeParams[name]; !set {
			c.RuntimeParams[name] = value
		}
	}
}
