package wire

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"sync"

	"github.com/twinspan/twinspan/internal/problem"
)

// Decode reads JSON of a peer into what a pointer points to, unless that would take more than
// most bytes of memory: a list of empty objects takes a hundred times as much as its text.
func Decode(text []byte, into any, most int) error {
	w := weigher{text: text, left: most}
	w.value(reflect.TypeOf(into).Elem())
	if w.left < 0 {
		return problem.New(problem.Invalid, "body_too_large", "what a peer sent takes more than %d bytes when it is read", most)
	}
	return json.Unmarshal(text, into)
}

// Room is how much memory a request or a frame of a peer may take when it is read, by its length: what agents say to each
// other takes about as much as its text, a list of short keys fourteen times as much.
func Room(length int) int { return 16*length + 128<<10 }

// weigher estimates from above what json.Unmarshal takes, beside what it is given. It goes through a
// text that need not be JSON; json.Unmarshal takes nothing for one that is not.
type weigher struct {
	text  []byte
	left  int
	depth int
}

// deepest is the nesting that encoding/json allows.
const deepest = 10_000

var (
	readsJSON = reflect.TypeFor[json.Unmarshaler]()
	readsText = reflect.TypeFor[encoding.TextUnmarshaler]()
	anything  = reflect.TypeFor[any]()
	fieldsOf  sync.Map // of structs: map[string]reflect.Type
)

// value passes over one value that is read into a type, nil where it is passed over.
func (w *weigher) value(t reflect.Type) {
	if w.left < 0 || w.depth > deepest {
		return
	}
	w.depth++
	defer func() { w.depth-- }()
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
		w.left -= int(t.Size())
	}
	if t != nil && (reflect.PointerTo(t).Implements(readsJSON) || reflect.PointerTo(t).Implements(readsText)) {
		from := w.text
		w.value(nil)
		w.left -= 4 * (len(from) - len(w.text))
		return
	}
	w.space()
	switch w.next() {
	case '{':
		w.object(t)
	case '[':
		w.list(t)
	case '"':
		w.left -= w.word(t)
	default:
		if t != nil && t.Kind() == reflect.Interface {
			w.left -= 16
		}
		n := bytes.IndexAny(w.text, ",]} \t\r\n")
		if n < 0 {
			n = len(w.text)
		}
		w.text = w.text[n:]
	}
}

func (w *weigher) object(t reflect.Type) {
	kind := reflect.Invalid
	if t != nil {
		kind = t.Kind()
	}
	w.text = w.text[1:]
	for w.more('}') {
		from := w.text
		n := w.word(nil)
		var field reflect.Type
		switch kind {
		case reflect.Struct:
			field = fieldOf(t, from[:n])
		case reflect.Map:
			field = t.Elem()
			w.left -= 2*int(t.Key().Size()+field.Size()) + n + 16
		case reflect.Interface:
			field = anything
			w.left -= 64 + n
		}
		w.space()
		if w.next() == ':' {
			w.text = w.text[1:]
		}
		w.value(field)
	}
}

func (w *weigher) list(t reflect.Type) {
	var element reflect.Type
	each := 0
	if t != nil {
		switch t.Kind() {
		case reflect.Slice: // which grows by doubling
			element = t.Elem()
			each = 2 * int(element.Size())
		case reflect.Array:
			element = t.Elem()
		case reflect.Interface:
			element, each = anything, 32
		}
	}
	w.text = w.text[1:]
	for w.more(']') {
		w.left -= each
		w.value(element)
	}
}

// more says whether another element follows in what the end closes, and goes to it.
func (w *weigher) more(end byte) bool {
	w.space()
	if w.next() == ',' {
		w.text = w.text[1:]
		w.space()
	}
	switch c := w.next(); {
	case c == end:
		w.text = w.text[1:]
		return false
	case c == 0, end == '}' && c != '"', c == '}', c == ']', c == ',', c == ':':
		w.text = nil // no JSON
		return false
	}
	return w.left >= 0 && w.depth <= deepest
}

// word passes over a string, and returns how long it is, quotes included.
func (w *weigher) word(t reflect.Type) int {
	n := 1
	for n < len(w.text) && w.text[n] != '"' {
		if w.text[n] == '\\' {
			n++
		}
		n++
	}
	n = min(n+1, len(w.text))
	w.text = w.text[n:]
	if t != nil && t.Kind() == reflect.Interface {
		return n + 16
	}
	return n
}

func (w *weigher) space() {
	w.text = bytes.TrimLeft(w.text, " \t\r\n")
}

func (w *weigher) next() byte {
	if len(w.text) == 0 {
		return 0
	}
	return w.text[0]
}

// fieldOf finds the type of a struct's field by its name in JSON, quotes included; nil where it has none.
func fieldOf(t reflect.Type, quoted []byte) reflect.Type {
	known, ok := fieldsOf.Load(t)
	if !ok {
		all := map[string]reflect.Type{}
		for _, f := range reflect.VisibleFields(t) {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous && tag == "" && f.Type.Kind() != reflect.Interface || f.PkgPath != "" {
				continue
			}
			if tag == "" {
				tag = f.Name
			}
			if old := all[tag]; old == nil || len(f.Index) == 1 {
				all[tag] = f.Type
			}
		}
		known, _ = fieldsOf.LoadOrStore(t, all)
	}
	fields := known.(map[string]reflect.Type)
	name := strings.Trim(string(quoted), `"`)
	if bytes.IndexByte(quoted, '\\') >= 0 && json.Unmarshal(quoted, &name) != nil {
		return nil
	}
	if f, ok := fields[name]; ok {
		return f
	}
	for other, f := range fields { // as encoding/json does
		if strings.EqualFold(other, name) {
			return f
		}
	}
	return nil
}
