package wire_test

import (
	"encoding/json"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/wire"
)

type inner struct {
	Name string
	More []inner `json:"more"`
}

type answer struct {
	inner
	Rows   []inner           `json:"rows"`
	Ptr    *[64]int64        `json:"ptr"`
	Ptrs   []*inner          `json:"ptrs"`
	Map    map[string]inner  `json:"map"`
	Any    any               `json:"any"`
	Bytes  []byte            `json:"bytes"`
	Lists  [][]int           `json:"lists"`
	Raw    json.RawMessage   `json:"raw"`
	Times  []time.Time       `json:"times"`
	Values map[string][]byte `json:"values"`
}

func full(n int) answer {
	a := answer{inner: inner{Name: strings.Repeat("é\"\\", n)}, Ptr: new([64]int64), Map: map[string]inner{}, Any: map[string]any{"x": []any{1.0, "y", nil, true}}, Raw: json.RawMessage(`{"x":[1,{"y":2}]}`)}
	for i := range n {
		a.Rows = append(a.Rows, inner{Name: "some name", More: []inner{{Name: "x"}}})
		a.Ptrs = append(a.Ptrs, &inner{Name: "y"})
		a.Map[strings.Repeat("k", i+1)] = inner{}
		a.Lists = append(a.Lists, []int{i, 2, 3})
		a.Times = append(a.Times, time.Unix(int64(i), 0).UTC())
	}
	a.Bytes, a.Values = make([]byte, n), map[string][]byte{"a": []byte("b")}
	return a
}

// What agents say to each other is read as ever, in each layout that JSON allows.
func TestDecodeReadsWhatFits(t *testing.T) {
	want := full(40)
	for name, write := range map[string]func(any) ([]byte, error){"plain": json.Marshal, "indented": func(v any) ([]byte, error) { return json.MarshalIndent(v, " ", "\t") }} {
		text, err := write(want)
		if err != nil {
			t.Fatal(err)
		}
		var got answer
		if err := wire.Decode(text, &got, 8*len(text)); err != nil {
			t.Fatal(err)
		}
		if want.Raw = got.Raw; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read %+v", name, got)
		}
	}
	for _, text := range []string{``, `{`, `[`, `{"rows":[}`, `{"rows":[,]}`, `{"rows" [1]}`, `{"rows":[1 2]}`, `"`, `"\`, `]`, `{]`, `{"a":}`, `{"map":{1:2}}`, "{\"rows\":[\x00]}", `{,}`, `:`, `nul`, strings.Repeat("[", 20_000)} {
		if err := wire.Decode([]byte(text), new(answer), 1<<20); err == nil {
			t.Errorf("%.20q is JSON", text)
		}
	}
}

// The texts that grow most when they are read are refused before memory is taken.
func TestDecodeRefusesWhatGrows(t *testing.T) {
	const many, most = 300_000, 4 << 20
	for name, text := range map[string]string{
		"empty objects":     `{"rows":[` + strings.Repeat(`{},`, many) + `{}]}`,
		"nulls":             `{"rows":[` + strings.Repeat("null ,", many) + `null]}`,
		"numbers, unfit":    `{"rows":[` + strings.Repeat(`0,`, many) + `0]}`,
		"other letters":     `{"ROWſ":[` + strings.Repeat(`{},`, many) + `{}]}`,
		"escaped name":      `{"\u0072ows":[` + strings.Repeat(`{},`, many) + `{}]}`,
		"said again":        `{` + strings.Repeat(`"ptr":null,"ptr":[],`, many) + `"ptr":[]}`,
		"pointers":          `{"ptrs":[` + strings.Repeat(`{},`, many) + `{}]}`,
		"lists":             `{"lists":[` + strings.Repeat(`[0],`, many) + `[]]}`,
		"anything":          `{"any":[` + strings.Repeat(`{"":0},`, many) + `[]]}`,
		"anything, deep":    `{"any":` + strings.Repeat(`[`, 9000) + strings.Repeat(`[],`, many) + `[]` + strings.Repeat(`]`, 9000) + `}`,
		"within each other": `{"rows":[` + strings.Repeat(`{"more":[{},{}]},`, many/10) + `{}]}`,
		"map":               `{"map":{` + strings.Repeat(`"":{},`, many) + `"":{}}}`,
		"of the outer":      `{"more":[` + strings.Repeat(`{},`, many) + `{}]}`,
	} {
		if !json.Valid([]byte(text)) {
			t.Fatalf("%s is no JSON", name)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := wire.Decode([]byte(text), new(answer), most)
		runtime.ReadMemStats(&after)
		if taken := after.TotalAlloc - before.TotalAlloc; taken > most+uint64(2*len(text)) {
			t.Errorf("%s takes %d bytes", name, taken)
		}
		if problem.CodeOf(err) != "body_too_large" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecode looks for a text that takes more memory than was estimated.
func FuzzDecode(f *testing.F) {
	text, err := json.Marshal(full(3))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text), uint8(1))
	f.Add(`{"rows":[{"more":[{},null]}],"any":[{"":[]}]}`, uint8(200))
	f.Fuzz(func(t *testing.T, text string, times uint8) {
		grown := []byte(`{"rows":[` + strings.Repeat(text+",", int(times)) + text + `],"any":[` + strings.Repeat(text+",", int(times)) + text + `]}`)
		const most = 1 << 20
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_ = wire.Decode(grown, new(answer), most)
		runtime.ReadMemStats(&after)
		if taken := int(after.TotalAlloc - before.TotalAlloc); taken > 3*most+20*len(grown) {
			t.Errorf("%d bytes of JSON take %d", len(grown), taken)
		}
	})
}
