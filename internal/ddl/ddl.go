// Package ddl decides how a schema change that was made on a primary is made on
// its twin. It is pure: signals of the stream go in, SQL comes out.
// docs/design/0006-schema-changes.md says why so.
package ddl

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Raw is text in the encoding of the primary's database, which need not be UTF-8.
// In JSON it is base64.
type Raw string

// UnmarshalJSON implements json.Unmarshaler.
func (r *Raw) UnmarshalJSON(b []byte) error {
	var bytes []byte
	err := json.Unmarshal(b, &bytes)
	*r = Raw(bytes)
	return err
}

// Change is a schema change as the primary's triggers describe it.
type Change struct {
	Tag         string         `json:"tag"` // the command's tag, as CREATE TABLE
	SQL         Raw            `json:"sql"`
	Conforming  bool           `json:"conforming"` // standard_conforming_strings, by which SQL is read
	Role        Raw            `json:"role"`       // current_user
	Session     Raw            `json:"session"`    // session_user
	Settings    map[string]Raw `json:"settings"`
	Objects     []Raw          `json:"objects"`     // identities of what it made, changed or dropped
	Roles       []Raw          `json:"roles"`       // roles of the primary whose names occur in SQL, perhaps as something else
	Tablespaces []Raw          `json:"tablespaces"` // likewise
	After       []Raw          `json:"after"`       // statements that bring rows to the primary's values
}

// Parse reads the payload of a signal of kind "ddl".
func Parse(payload []byte) (*Change, error) {
	c := &Change{}
	if err := json.Unmarshal(payload, c); err != nil {
		return nil, problem.Wrap(err, problem.Internal, "stream_corrupt", "the stream holds a schema change that cannot be read")
	}
	if c.Tag == "" || c.SQL == "" || c.Role == "" {
		return nil, problem.New(problem.Internal, "stream_corrupt", "the stream holds a schema change without tag, text or role")
	}
	return c, nil
}

// Subject names what the change is about, for people.
func (c *Change) Subject() string {
	if len(c.Objects) == 0 {
		return c.Tag
	}
	return string(c.Objects[0])
}

// Script is what makes a change on the twin: statements for one session, in one
// transaction, to be run one by one.
type Script struct {
	Statements []string
	Main       int // index of the change itself; the others prepare and clean up
}

// restored are settings of the apply session that the change must not run with;
// they come back after it. The link's session plans for single rows.
var restored = []string{"enable_seqscan", "enable_hashjoin", "enable_mergejoin", "plan_cache_mode"}

// neutral are values that say nothing: setting them could only fail.
var neutral = map[string]string{"default_table_access_method": "heap", "default_toast_compression": "pglz"}

// Script returns the statements. None means that nothing of the change has a
// meaning on the twin.
func (c *Change) Script() Script {
	sql := c.rewrite()
	if sql == "" {
		return Script{}
	}
	var s Script
	names := make([]string, 0, len(c.Settings))
	for name, value := range c.Settings {
		if neutral[name] == string(value) && value != "" {
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	var set, reset []string
	for _, name := range names {
		set = append(set, config(name, string(c.Settings[name])))
		reset = append(reset, name)
	}
	// The body was checked where it was written; here it may name what does not
	// cross, as temporary tables.
	set = append(set, config("check_function_bodies", "off"))
	for _, name := range restored {
		set = append(set, config(name, defaults[name]))
	}
	reset = append(append(reset, "check_function_bodies"), restored...)
	s.add("SELECT " + strings.Join(set, ", "))
	s.add(raise(string(c.Role)))
	s.add("SET LOCAL ROLE " + sqlname.Quote(string(c.Role)))
	s.Main = len(s.Statements)
	s.add(sql)
	s.add("SET LOCAL ROLE NONE")
	s.add(lowerAgain)
	for _, name := range reset {
		s.add("SET LOCAL " + sqlname.Quote(name) + " TO DEFAULT")
	}
	for _, a := range c.After {
		s.add(string(a))
	}
	return s
}

var defaults = map[string]string{"enable_seqscan": "on", "enable_hashjoin": "on", "enable_mergejoin": "on", "plan_cache_mode": "auto"}

func (s *Script) add(sql string) { s.Statements = append(s.Statements, sql) }

func config(name, value string) string {
	return "pg_catalog.set_config(" + sqlname.Literal(name) + ", " + sqlname.Literal(value) + ", true)"
}

// raise lets the role do everything for the moment of the change: what it was
// allowed on the primary is settled, and by rights that do not cross, such as
// memberships. Nobody else sees the role so, for it does not commit so.
func raise(role string) string {
	return "DO " + sqlname.Literal("BEGIN IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = "+sqlname.Literal(role)+") THEN ALTER ROLE "+
		sqlname.Quote(role)+" SUPERUSER; PERFORM pg_catalog.set_config('twinspan.raised', "+sqlname.Literal(role)+", true); END IF; END")
}

const lowerAgain = `DO $$ BEGIN IF pg_catalog.current_setting('twinspan.raised', true) <> '' THEN
	EXECUTE pg_catalog.format('ALTER ROLE %I NOSUPERUSER', pg_catalog.current_setting('twinspan.raised'));
	PERFORM pg_catalog.set_config('twinspan.raised', '', true); END IF; END $$`
