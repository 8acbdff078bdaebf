package httpapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// The parts of a description that a program relies on.
type (
	described struct {
		Paths      map[string]map[string]describedOp `json:"paths"`
		Components struct {
			Schemas map[string]*shape `json:"schemas"`
		} `json:"components"`
	}
	describedOp struct {
		Parameters []struct {
			Name, In string
			Required bool
			Schema   *shape
		} `json:"parameters"`
		RequestBody *struct {
			Content map[string]struct{ Schema *shape }
		} `json:"requestBody"`
		Responses map[string]struct {
			Content map[string]struct{ Schema *shape }
		} `json:"responses"`
	}
	shape struct {
		Ref        string            `json:"$ref"`
		Type       any               `json:"type"`
		Format     string            `json:"format"`
		Properties map[string]*shape `json:"properties"`
		Required   []string          `json:"required"`
		Items      *shape            `json:"items"`
		Enum       []any             `json:"enum"`
		AnyOf      []*shape          `json:"anyOf"` // an object, or null
		Minimum    *float64          `json:"minimum"`
		Maximum    *float64          `json:"maximum"`
		MaxLength  *int              `json:"maxLength"`
	}
)

// broken lists what a program that was written for one description cannot do with another.
// Fields that are new in answers break nobody: programs pass over what they do not know, and
// so they have to do with values of an enumeration.
func broken(t *testing.T, before, now []byte) (list []string) {
	t.Helper()
	var b, n described
	for text, into := range map[*[]byte]*described{&before: &b, &now: &n} {
		if err := json.Unmarshal(*text, into); err != nil {
			t.Fatal(err)
		}
	}
	c := comparison{before: &b, now: &n, seen: map[string]bool{}}
	for _, path := range slices.Sorted(maps.Keys(b.Paths)) {
		for method, old := range b.Paths[path] {
			where := strings.ToUpper(method) + " " + path
			next, there := n.Paths[path][method]
			if !there {
				c.say(where, "is gone")
				continue
			}
			c.operation(where, old, next)
		}
	}
	slices.Sort(c.list)
	return c.list
}

type comparison struct {
	before, now *described
	seen        map[string]bool
	list        []string
}

func (c *comparison) say(where, format string, args ...any) {
	c.list = append(c.list, where+" "+fmt.Sprintf(format, args...))
}

func (c *comparison) operation(where string, old, next describedOp) {
	for _, p := range old.Parameters {
		found := false
		for _, q := range next.Parameters {
			if q.Name == p.Name && q.In == p.In {
				found = true
				if q.Required && !p.Required {
					c.say(where, "demands the parameter %s", p.Name)
				}
				c.taken(where+" "+p.Name, p.Schema, q.Schema)
			}
		}
		if !found {
			c.say(where, "does not take the parameter %s", p.Name)
		}
	}
	for _, q := range next.Parameters {
		known := false
		for _, p := range old.Parameters {
			known = known || p.Name == q.Name && p.In == q.In
		}
		if q.Required && !known {
			c.say(where, "demands the parameter %s", q.Name)
		}
	}
	if next.RequestBody != nil {
		if old.RequestBody == nil {
			c.say(where, "demands a body")
		} else {
			c.taken(where, old.RequestBody.Content["application/json"].Schema, next.RequestBody.Content["application/json"].Schema)
		}
	}
	for status, response := range old.Responses {
		answer, there := next.Responses[status]
		if !there {
			c.say(where, "does not answer %s", status)
			continue
		}
		for _, content := range response.Content {
			if len(answer.Content) == 0 {
				c.say(where, "answers %s without a body", status)
			}
			for _, other := range answer.Content {
				c.given(where+" "+status, content.Schema, other.Schema)
			}
		}
	}
}

func resolve(in *described, s *shape) *shape {
	if s != nil && len(s.AnyOf) > 0 {
		s = s.AnyOf[0]
	}
	for s != nil && s.Ref != "" {
		s = in.Components.Schemas[s.Ref[strings.LastIndex(s.Ref, "/")+1:]]
	}
	return s
}

// both finds the shapes behind references, and says whether there is something to compare.
func (c *comparison) both(way, where string, old, next *shape) (o, n *shape, more bool) {
	if old != nil && next != nil && old.Ref != "" {
		key := way + old.Ref + next.Ref
		if c.seen[key] { // once is enough, and a type may hold itself
			return nil, nil, false
		}
		c.seen[key] = true
	}
	o, n = resolve(c.before, old), resolve(c.now, next)
	if o == nil {
		return nil, nil, false
	}
	if n == nil {
		c.say(where, "has no type any more")
		return nil, nil, false
	}
	return o, n, true
}

// given compares what is answered.
func (c *comparison) given(where string, old, next *shape) {
	o, n, more := c.both("given", where, old, next)
	if !more {
		return
	}
	if kinds(o) != kinds(n) && !within(n, o) {
		c.say(where, "is %s, was %s", kinds(n), kinds(o))
		return
	}
	for name, p := range o.Properties {
		q := n.Properties[name]
		if q == nil {
			c.say(where, "lacks the field %s", name)
			continue
		}
		if slices.Contains(o.Required, name) && !slices.Contains(n.Required, name) {
			c.say(where, "may lack the field %s", name)
		}
		c.given(where+"."+name, p, q)
	}
	if o.Items != nil {
		c.given(where+"[]", o.Items, n.Items)
	}
}

// taken compares what is asked for.
func (c *comparison) taken(where string, old, next *shape) {
	o, n, more := c.both("taken", where, old, next)
	if !more {
		return
	}
	if kinds(o) != kinds(n) && !within(o, n) {
		c.say(where, "has to be %s, was %s", kinds(n), kinds(o))
		return
	}
	for name, p := range o.Properties {
		q := n.Properties[name]
		if q == nil {
			c.say(where, "does not take the field %s", name)
			continue
		}
		c.taken(where+"."+name, p, q)
	}
	for _, name := range n.Required {
		if !slices.Contains(o.Required, name) {
			c.say(where, "demands the field %s", name)
		}
	}
	for _, v := range o.Enum {
		if len(n.Enum) > 0 && !slices.Contains(n.Enum, v) {
			c.say(where, "does not take %v", v)
		}
	}
	if n.Minimum != nil && (o.Minimum == nil || *n.Minimum > *o.Minimum) {
		c.say(where, "does not take less than %v", *n.Minimum)
	}
	if n.Maximum != nil && (o.Maximum == nil || *n.Maximum < *o.Maximum) {
		c.say(where, "does not take more than %v", *n.Maximum)
	}
	if n.MaxLength != nil && (o.MaxLength == nil || *n.MaxLength < *o.MaxLength) {
		c.say(where, "does not take more than %d characters", *n.MaxLength)
	}
	if o.Items != nil {
		c.taken(where+"[]", o.Items, n.Items)
	}
}

func kinds(s *shape) string {
	list := kindsOf(s)
	slices.Sort(list)
	return strings.Join(list, " or ")
}

func kindsOf(s *shape) (list []string) {
	switch t := s.Type.(type) {
	case string:
		list = []string{t}
	case []any:
		for _, v := range t {
			list = append(list, fmt.Sprint(v))
		}
	}
	return list
}

// within says whether each kind of one shape is one of another.
func within(s, of *shape) bool {
	for _, k := range kindsOf(s) {
		if !slices.Contains(kindsOf(of), k) {
			return false
		}
	}
	return true
}

// What breaks programs is found, and nothing else.
func TestBrokenIsWhatBreaksPrograms(t *testing.T) {
	doc := func(parameters, body, answer string) []byte {
		return []byte(`{"paths":{"/x":{"post":{"parameters":[` + parameters + `],"requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/In"}}}},` +
			`"responses":{"200":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Out"}}}}}}}},"components":{"schemas":{"In":` + body + `,"Out":` + answer + `}}}`)
	}
	const parameter = `{"name":"q","in":"query","schema":{"type":"integer","maximum":10}}`
	const in = `{"type":"object","required":["a"],"properties":{"a":{"type":"string","enum":["x","y"]},"b":{"type":"string"}}}`
	const out = `{"type":"object","required":["n"],"properties":{"n":{"type":"integer"},"self":{"$ref":"#/components/schemas/Out"},"l":{"type":["array","null"],"items":{"type":"string","enum":["x"]}}}}`
	before := doc(parameter, in, out)
	for name, c := range map[string]struct {
		now  []byte
		want string
	}{
		"nothing":                     {before, ""},
		"a new field of an answer":    {doc(parameter, in, strings.Replace(out, `"n":{`, `"m":{"type":"string"},"n":{`, 1)), ""},
		"a new value of an answer":    {doc(parameter, in, strings.Replace(out, `["x"]`, `["x","z"]`, 1)), ""},
		"never null any more":         {doc(parameter, in, strings.Replace(out, `["array","null"]`, `"array"`, 1)), ""},
		"a new optional field":        {doc(parameter, strings.Replace(in, `"b":`, `"c":{"type":"string"},"b":`, 1), out), ""},
		"an answer's field is gone":   {doc(parameter, in, strings.Replace(out, `"n":{"type":"integer"},`, ``, 1)), "lacks the field n"},
		"an answer's field may lack":  {doc(parameter, in, strings.Replace(out, `["n"]`, `[]`, 1)), "may lack the field n"},
		"an answer's type":            {doc(parameter, in, strings.Replace(out, `"integer"`, `"string"`, 1)), "is string, was integer"},
		"a request's new demand":      {doc(parameter, strings.Replace(in, `["a"]`, `["a","b"]`, 1), out), "demands the field b"},
		"a request's field is gone":   {doc(parameter, strings.Replace(in, `,"b":{"type":"string"}`, ``, 1), out), "does not take the field b"},
		"a request's value is gone":   {doc(parameter, strings.Replace(in, `["x","y"]`, `["x"]`, 1), out), "does not take y"},
		"a parameter is gone":         {doc(``, in, out), "does not take the parameter q"},
		"a parameter is demanded":     {doc(strings.Replace(parameter, `"in"`, `"required":true,"in"`, 1), in, out), "demands the parameter q"},
		"a parameter takes less":      {doc(strings.Replace(parameter, `10`, `9`, 1), in, out), "does not take more than 9"},
		"a new parameter is demanded": {doc(parameter+`,{"name":"r","in":"query","required":true,"schema":{"type":"string"}}`, in, out), "demands the parameter r"},
		"the path is gone":            {[]byte(`{"paths":{}}`), "is gone"},
	} {
		got := broken(t, before, c.now)
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
