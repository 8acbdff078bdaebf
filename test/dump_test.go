package test

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// dump is what pg_dump says of a database's schema: the text of each object by
// its type and name. Objects of one name, as the parts of a default privilege,
// share an entry.
type dump map[string][]string

var (
	entryHead = regexp.MustCompile(`(?m)^--\n-- Name: (.+); Type: (.+); Schema: (.+); Owner: .*\n--\n`)
	// ownEntry matches what a link puts into a database besides its schema.
	ownEntry = regexp.MustCompile(`^(TRIGGER .* twinspan_\w+|(COMMENT )?EVENT TRIGGER - .*twinspan_\w+|PUBLICATION.* twinspan_\w+)$`)
	// stateLine matches what pg_dump says between entries, for those that follow.
	stateLine  = regexp.MustCompile(`(?m)^(SET default_tablespace = '';|SET default_table_access_method = heap;|\\(un)?restrict .*|-- PostgreSQL database dump complete|--)\n?`)
	identity   = regexp.MustCompile(`(?m)^ALTER TABLE ONLY (.*) REPLICA IDENTITY FULL;\n*`)
	blankLines = regexp.MustCompile(`\n{2,}`)
)

// readDump dumps the schema without what a link has put there. The replica
// identities that it changed are as they were before.
func readDump(t *testing.T, s *pgtest.Server, database string) dump {
	t.Helper()
	path, _, err := instance.FindClient("pg_dump", s.Major)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--schema-only", "--exclude-schema=twinspan", "--dbname="+s.DSN(database))
	cmd.Env = append(os.Environ(), "PGOPTIONS=-c quote_all_identifiers=off -c timezone=UTC") // names and moments of both sides alike
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("pg_dump: %v", err)
	}
	former := map[string]string{}
	if pgtest.Query(t, s.DSN(database), `SELECT to_regclass('twinspan.identity') IS NOT NULL`)[0][0][0] == 't' {
		for _, row := range pgtest.Query(t, s.DSN(database), `SELECT format('%I.%I', n.nspname, c.relname), i.was FROM twinspan.identity i JOIN pg_class c ON c.oid = i.oid JOIN pg_namespace n ON n.oid = c.relnamespace`) {
			former[row[0]] = row[1]
		}
	}
	return parseDump(string(out), former)
}

// parseDump takes a dump apart. Tables in former had another replica identity
// before the link gave them FULL.
func parseDump(text string, former map[string]string) dump {
	d := dump{}
	heads := entryHead.FindAllStringSubmatchIndex(text, -1)
	for i, h := range heads {
		end := len(text)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		part := func(n int) string { return text[h[2*n]:h[2*n+1]] }
		kind := part(2)
		key := kind + " " + part(3) + " " + part(1)
		if ownEntry.MatchString(key) {
			continue
		}
		body := strings.TrimSpace(stateLine.ReplaceAllString(text[h[1]:end], ""))
		body = identity.ReplaceAllStringFunc(body, func(line string) string {
			table := identity.FindStringSubmatch(line)[1]
			switch was, changed := former[table]; {
			case !changed:
				return line
			case was == "n":
				return "ALTER TABLE ONLY " + table + " REPLICA IDENTITY NOTHING;\n"
			}
			return ""
		})
		if kind == "TABLE" {
			body = blankLines.ReplaceAllString(body, "\n")
		}
		body = strings.TrimSpace(body)
		if strings.HasSuffix(kind, "ACL") {
			lines := strings.Split(body, "\n")
			slices.Sort(lines)
			body = strings.Join(lines, "\n")
		}
		d[key] = append(d[key], body)
	}
	for _, bodies := range d {
		slices.Sort(bodies)
	}
	return d
}

// diffDumps returns what differs, "" when nothing does.
func diffDumps(a, b dump) string {
	var out strings.Builder
	keys := slices.Collect(maps.Keys(a))
	for key := range b {
		if _, both := a[key]; !both {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		inA, inB := strings.Join(a[key], "\n\n"), strings.Join(b[key], "\n\n")
		switch {
		case inA == inB:
		case a[key] == nil:
			fmt.Fprintf(&out, "only on the second: %s\n%s\n", key, indent("+ ", inB))
		case b[key] == nil:
			fmt.Fprintf(&out, "only on the first: %s\n%s\n", key, indent("- ", inA))
		default:
			fmt.Fprintf(&out, "differs: %s\n%s", key, diffLines(strings.Split(inA, "\n"), strings.Split(inB, "\n")))
		}
	}
	return out.String()
}

func indent(mark, text string) string {
	return mark + strings.ReplaceAll(text, "\n", "\n"+mark)
}

// diffLines lines up two texts by their longest common subsequence.
func diffLines(a, b []string) string {
	length := make([][]int, len(a)+1)
	for i := range length {
		length[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				length[i][j] = length[i+1][j+1] + 1
			} else {
				length[i][j] = max(length[i+1][j], length[i][j+1])
			}
		}
	}
	var out strings.Builder
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && length[i+1][j] >= length[i][j+1]:
			fmt.Fprintf(&out, "- %s\n", a[i])
			i++
		default:
			fmt.Fprintf(&out, "+ %s\n", b[j])
			j++
		}
	}
	return out.String()
}

// besidesDump are the facts of a schema and its contents that pg_dump leaves out
// and pgtest.Equal does not look at. Names are whole, whatever the path of a session. What a failed CREATE INDEX
// CONCURRENTLY has left is no difference (docs/design/0013).
var besidesDump = []struct{ what, sql string }{
	{"index states", `SELECT concat(x.relnamespace::regnamespace, '.', x.relname), i.indisvalid, i.indisready, i.indislive FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
		WHERE c.relnamespace::regnamespace::text NOT IN ('pg_catalog', 'pg_toast', 'information_schema', 'twinspan') AND c.relnamespace::regnamespace::text !~ '^pg_(toast_)?temp' AND (i.indisvalid OR x.relkind = 'I')`},
	{"materialized views", `SELECT concat(c.relnamespace::regnamespace, '.', c.relname), c.relispopulated, CASE WHEN c.relispopulated THEN
		md5(query_to_xml(format('SELECT r::text FROM %s r ORDER BY r::text COLLATE "C"', c.oid::regclass), true, true, '')::text) END FROM pg_class c WHERE c.relkind = 'm'`},
	{"enum values", `SELECT concat(t.typnamespace::regnamespace, '.', t.typname), enumlabel, row_number() OVER (PARTITION BY enumtypid ORDER BY enumsortorder) FROM pg_enum JOIN pg_type t ON t.oid = enumtypid`},
	{"extensions", `SELECT extname, extversion, extnamespace::regnamespace FROM pg_extension`},
}

// diffBesides compares what diffDumps does not.
func diffBesides(t *testing.T, dsnA, dsnB string) string {
	t.Helper()
	var out strings.Builder
	for _, f := range besidesDump {
		read := func(dsn string) []string {
			var lines []string
			for _, row := range pgtest.Query(t, dsn, f.sql) {
				lines = append(lines, strings.Join(row, " | "))
			}
			slices.Sort(lines)
			return lines
		}
		if d := diffLines(read(dsnA), read(dsnB)); d != "" {
			fmt.Fprintf(&out, "%s differ\n%s", f.what, d)
		}
	}
	return out.String()
}

// diffSequences compares the values of sequences: the twin may be ahead of the
// primary, in the direction in which a sequence counts, but never behind.
func diffSequences(t *testing.T, primary, twin string) string {
	t.Helper()
	type state struct{ next, step int64 }
	read := func(dsn string) map[string]state {
		m := map[string]state{}
		for _, row := range pgtest.Query(t, dsn, `SELECT format('%I.%I', schemaname, sequencename), CASE WHEN last_value IS NULL THEN start_value ELSE last_value + increment_by END, increment_by
			FROM pg_sequences WHERE schemaname <> 'twinspan'`) {
			var s state
			if _, err := fmt.Sscan(row[1]+" "+row[2], &s.next, &s.step); err != nil {
				t.Fatal(err)
			}
			m[row[0]] = s
		}
		return m
	}
	a, b := read(primary), read(twin)
	var out strings.Builder
	for _, name := range slices.SortedFunc(maps.Keys(a), cmp.Compare[string]) {
		switch behind := (a[name].next - b[name].next) * a[name].step; {
		case b[name].step != a[name].step:
			fmt.Fprintf(&out, "sequence %s: increments %d and %d\n", name, a[name].step, b[name].step)
		case behind > 0:
			fmt.Fprintf(&out, "sequence %s: next is %d on the primary, %d on the twin\n", name, a[name].next, b[name].next)
		}
	}
	return out.String()
}

func TestDumpsAreComparedByEntry(t *testing.T) {
	t.Parallel()
	const one = "--\n-- Name: t; Type: TABLE; Schema: public; Owner: o\n--\n\nCREATE TABLE public.t (\n    a integer\n);\n\nALTER TABLE ONLY public.t REPLICA IDENTITY FULL;\n\n\n"
	const two = "--\n-- Name: u; Type: TABLE; Schema: public; Owner: o\n--\n\nCREATE TABLE public.u (\n    a integer,\n    b integer\n);\n\n\n"
	const trigger = "--\n-- Name: t twinspan_gate; Type: TRIGGER; Schema: public; Owner: o\n--\n\nCREATE TRIGGER twinspan_gate;\n\n\n"
	if d := diffDumps(parseDump(one+two+trigger, nil), parseDump(two+one, nil)); d != "" {
		t.Errorf("order and the link's own count: %s", d)
	}
	former := map[string]string{"public.t": "d"}
	if d := diffDumps(parseDump(one, former), parseDump(one, nil)); d != "differs: TABLE public t\n+ ALTER TABLE ONLY public.t REPLICA IDENTITY FULL;\n" {
		t.Errorf("an identity that the link has set: %q", d)
	}
	changed := strings.ReplaceAll(two, "b integer", "b bigint")
	if d := diffDumps(parseDump(one+two, nil), parseDump(changed, nil)); !strings.Contains(d, "only on the first: TABLE public t\n- CREATE TABLE") || !strings.HasSuffix(d, "differs: TABLE public u\n-     b integer\n+     b bigint\n") {
		t.Errorf("the difference is %q", d)
	}
}
