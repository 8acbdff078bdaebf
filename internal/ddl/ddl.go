// Package ddl decides how a schema change that was made on a primary is made on
// its twin. It is pure: signals of the stream go in, SQL comes out.
// docs/design/0006-schema-changes.md says why so.
package ddl

import (
	"encoding/json"

	"github.com/twinspan/twinspan/internal/problem"
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

// Table is the name of a table.
type Table struct {
	Schema Raw `json:"schema"`
	Table  Raw `json:"table"`
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

	// Since format 2 of the signal; nil where the primary does not say.
	Superuser *bool `json:"superuser"` // Role is a superuser of the primary
	Member    []Raw `json:"member"`    // roles that Role is a member of, where it is no superuser
	Creates   bool  `json:"creates"`   // Role may create schemas in the database

	Invalid bool `json:"invalid"` // an index was made that nobody can use, for one of a partition had failed before

	Before []Raw `json:"before"` // statements that make what the twin may lack

	// What the primary's catalogs have in place of a part of SQL; "" where that part stands.
	On        Raw `json:"on"`        // on what a GRANT or REVOKE was, but for temporary objects
	Bound     Raw `json:"bound"`     // FOR VALUES, of a partition that is made or attached
	Extension Raw `json:"extension"` // the extension that is made or changed
	Version   Raw `json:"version"`   // its version now

	// Config are all settings that a function has now, of which the change sets or resets one that is no
	// business of the fence's: role or session_authorization; nil where it does not.
	Config *[]Raw `json:"config"`

	// Anew are the tables whose rows come behind the change: nothing is to be computed for those that are there.
	Anew []Table `json:"anew"`

	Bytes int64 `json:"bytes"` // of a relation that no event trigger saw: how large it is

	// Whole makes the relation that the change is about, as the change leaves it, where no event trigger can have
	// seen it made; nil usually. Of Whole, Instead says that nothing of the change is left to be done behind it.
	Whole   *Change `json:"whole"`
	Instead bool    `json:"instead"`
}

// Parse reads the payload of a signal of kind "ddl".
func Parse(payload []byte) (*Change, error) {
	c := &Change{}
	if err := json.Unmarshal(payload, c); err != nil {
		return nil, problem.Wrap(err, problem.Internal, "stream_corrupt", "the stream holds a schema change that cannot be read")
	}
	for _, change := range []*Change{c, c.Whole} {
		if change == nil {
			continue
		}
		change.SQL = Raw(closed(string(change.SQL), change.Conforming))
		if err := change.valid(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Change) valid() error {
	if c.Tag == "" || c.SQL == "" || c.Role == "" {
		return problem.New(problem.Internal, "stream_corrupt", "the stream holds a schema change without tag, text or role")
	}
	if e := (editor{tokens: scan(string(c.SQL), c.Conforming)}); !e.single() {
		return problem.New(problem.Diverged, "schema_change_failed", "%s: the text that came with it holds several statements", c.Tag).On(c.Subject()).
			WithHint("make the change on the secondary by hand, then: twinspan link resume NAME --skip-change")
	}
	return nil
}

// Subject names what the change is about, for people.
func (c *Change) Subject() string {
	if len(c.Objects) == 0 {
		return c.Tag
	}
	return string(c.Objects[0])
}
