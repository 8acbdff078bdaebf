package pgoutput

import (
	"bytes"
	"testing"
)

// TestUnstream: what is taken apart is the message as it stands outside of a block.
func TestUnstream(t *testing.T) {
	for _, m := range samples() {
		if !m.stream {
			continue
		}
		xid, rest, ok := Unstream(m.msg)
		var inside Decoder
		if _, err := inside.Decode(join(one('S'), i32(5), one(1))); err != nil {
			t.Fatal(err)
		}
		decoded, err := inside.Decode(m.msg)
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		if decoded.XID == 0 {
			if ok {
				t.Errorf("%s: has no transaction, and got %d", m.name, xid)
			}
			continue
		}
		if !ok || xid != decoded.XID {
			t.Errorf("%s: %d, %v, want %d", m.name, xid, ok, decoded.XID)
		}
		var outside Decoder
		if again, err := outside.Decode(append([]byte{m.msg[0]}, rest...)); err != nil || again.Type != Type(m.msg[0]) {
			t.Errorf("%s: outside of a block: %v", m.name, err)
		}
	}
	if _, _, ok := Unstream([]byte("I123")); ok {
		t.Error("a head that is too short was taken")
	}
}

// TestBeginAndCommitReadBack: what is appended is what the server sends.
func TestBeginAndCommitReadBack(t *testing.T) {
	var d Decoder
	begin, commit := Begin{0x100, 7, 99}, Commit{0x100, 0x130, 7}
	if m, err := d.Decode(begin.Append(nil)); err != nil || m.Begin != begin {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := d.Decode(commit.Append(nil)); err != nil || m.Commit != commit {
		t.Errorf("%+v, %v", m, err)
	}
	if !bytes.Equal(begin.Append(nil), join(one('B'), i64(0x100), i64(7), i32(99))) {
		t.Error("a Begin is not as the manual has it")
	}
}
