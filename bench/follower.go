package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// follower keeps a copy of the source database up, and can rest meanwhile.
type follower interface {
	name() string
	// establish makes the copy and follows the source from then on.
	establish(ctx context.Context) error
	suspend(ctx context.Context) error
	resume(ctx context.Context) error
	// remove ends it and takes its objects away.
	remove(ctx context.Context) error
	// database is the copy, on server b.
	database() string
	// pids are processes at work besides the two servers'.
	pids() []int
	// takes says whether it can follow such a workload, or would do nothing else
	// there than another candidate.
	takes(w workload) bool
}

// candidateNames are what can be asked for.
var candidateNames = []string{"twinspan", "limit", "native", "native-text", "native-streaming", "native-parallel", "pglogical", "pgcopydb", "pg_dump", "by-hand", "standby"}

// native is PostgreSQL's own logical replication.
type native struct {
	r       *rig
	label   string
	options string
	stream  bool
	since   int // the first version that knows the options
}

func (n *native) name() string     { return n.label }
func (n *native) database() string { return databaseOf(n.label) }
func (n *native) object() string   { return "bench_" + strings.ReplaceAll(n.label, "-", "_") }
func (n *native) pids() []int      { return nil }

// databaseOf names the copy of a candidate.
func databaseOf(label string) string { return "copy_" + strings.ReplaceAll(label, "-", "_") }

// takes: streaming changes nothing for small transactions.
func (n *native) takes(w workload) bool { return !n.stream || w.large }

// publication is what native subscriptions and the limit read. It names the
// public schema's tables, for Twinspan's own are no concern of theirs.
const publication = "bench_native"

const publicationSQL = `DO $$ BEGIN EXECUTE (SELECT 'CREATE PUBLICATION ` + publication + ` FOR TABLE ' || string_agg(oid::regclass::text, ', ')
	FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace); END $$`

func (n *native) establish(ctx context.Context) error {
	name := n.database()
	if err := n.r.copySchema(ctx, source, name); err != nil {
		return err
	}
	err := n.r.b.exec(ctx, name, fmt.Sprintf(`CREATE SUBSCRIPTION %s CONNECTION %s PUBLICATION %s WITH (%s)`,
		n.object(), sqlname.Literal(n.r.publisher(source)), publication, n.options))
	if err != nil {
		return err
	}
	return n.r.subscribed(ctx, name)
}

// subscribed waits until the first copy of a subscription is complete.
func (r *rig) subscribed(ctx context.Context, database string) error {
	return until(ctx, 20*time.Millisecond, func() (bool, error) {
		return value[bool](ctx, r.b, database, `SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel
			JOIN pg_subscription s ON s.oid = srsubid WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	})
}

func (n *native) alter(ctx context.Context, what string) error {
	return n.r.b.exec(ctx, n.database(), "ALTER SUBSCRIPTION "+n.object()+" "+what)
}

func (n *native) suspend(ctx context.Context) error { return n.alter(ctx, "DISABLE") }
func (n *native) resume(ctx context.Context) error  { return n.alter(ctx, "ENABLE") }

func (n *native) remove(ctx context.Context) error {
	return n.r.b.exec(ctx, n.database(), "DROP SUBSCRIPTION "+n.object())
}

// copySchema makes a database on b with the structure of one on a.
func (r *rig) copySchema(ctx context.Context, from, to string) error {
	if err := r.b.exec(ctx, "postgres", "CREATE DATABASE "+sqlname.Quote(to)); err != nil {
		return err
	}
	return r.restore(ctx, from, to, "")
}

// restore carries a section of the structure, or all of it.
func (r *rig) restore(ctx context.Context, from, to, section string) error {
	file := r.dir + "/structure"
	args := []string{"--schema=public", "--no-publications", "-Fc", "-f", file, r.a.conninfo(from, overSocket)}
	if section == "" {
		args = append(args, "--schema-only")
	} else {
		args = append(args, "--section="+section)
	}
	if _, err := command(ctx, nil, r.a.program("pg_dump"), args...); err != nil {
		return err
	}
	jobs := "1"
	if section == "post-data" {
		jobs = fmt.Sprint(cores())
	}
	// The schema public exists already, which pg_restore is told to take in its stride.
	_, err := command(ctx, nil, "bash", "-c", `"$0" -L <("$0" -l "$1" | grep -v ' SCHEMA - public ') -j "$2" -d "$3" "$1"`,
		r.b.program("pg_restore"), file, jobs, r.b.conninfo(to, overSocket))
	return err
}

// pglogical is the extension.
type pglogical struct{ r *rig }

func (p *pglogical) name() string     { return "pglogical" }
func (p *pglogical) database() string { return "copy_pglogical" }
func (p *pglogical) pids() []int      { return nil }

// takes: pglogical refuses to publish updates of a table without a key.
func (p *pglogical) takes(w workload) bool { return !w.keyless }

func (p *pglogical) establish(ctx context.Context) error {
	if err := p.r.copySchema(ctx, source, p.database()); err != nil {
		return err
	}
	err := p.r.a.exec(ctx, source, `SET search_path = public; CREATE EXTENSION IF NOT EXISTS pglogical`,
		`SELECT pglogical.create_node('a', `+sqlname.Literal(p.r.publisher(source))+`)`,
		`SELECT pglogical.replication_set_add_table(CASE WHEN c.oid IN (SELECT conrelid FROM pg_constraint WHERE contype = 'p') THEN 'default' ELSE 'default_insert_only' END, c.oid)
			FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'keyless'`)
	if err != nil {
		return err
	}
	err = p.r.b.exec(ctx, p.database(), `CREATE EXTENSION pglogical`,
		`SELECT pglogical.create_node('b', `+sqlname.Literal(p.r.b.conninfo(p.database(), p.r.over())+noCertificate)+`)`,
		`SELECT pglogical.create_subscription('bench', `+sqlname.Literal(p.r.publisher(source))+`)`)
	if err != nil {
		return err
	}
	return until(ctx, 50*time.Millisecond, func() (bool, error) {
		return value[bool](ctx, p.r.b, p.database(), `SELECT count(*) FILTER (WHERE sync_nspname IS NOT NULL) > 0 AND bool_and(sync_status = 'r') FROM pglogical.local_sync_status`)
	})
}

func (p *pglogical) suspend(ctx context.Context) error {
	return p.r.b.exec(ctx, p.database(), `SELECT pglogical.alter_subscription_disable('bench', true)`)
}

func (p *pglogical) resume(ctx context.Context) error {
	return p.r.b.exec(ctx, p.database(), `SELECT pglogical.alter_subscription_enable('bench', true)`)
}

func (p *pglogical) remove(ctx context.Context) error {
	return p.r.b.exec(ctx, p.database(), `SELECT pglogical.drop_subscription('bench')`)
}
