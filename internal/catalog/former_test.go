package catalog

import (
	"encoding/json"
	"testing"
)

func TestJSONIsWrittenInASCII(t *testing.T) {
	in := map[string]string{"ä": "日本 \U0001f600 \"x\" \u2028", "plain": "a"}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	out := inASCII(text)
	for _, b := range []byte(out) {
		if b >= 0x80 {
			t.Fatalf("%q", out)
		}
	}
	var back map[string]string
	if err := json.Unmarshal([]byte(out), &back); err != nil || len(back) != 2 || back["ä"] != in["ä"] {
		t.Errorf("%q, %v", back, err)
	}
}
