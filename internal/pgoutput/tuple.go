package pgoutput

import (
	"encoding/binary"
	"fmt"
)

// Kinds of a column's value.
const (
	Null      = 'n'
	Unchanged = 'u' // left in TOAST by an UPDATE; the value is not in the message
	Text      = 't'
	Binary    = 'b'
)

// Kinds is the set of kinds of values in a tuple.
type Kinds uint8

// The members of Kinds.
const (
	HasNull Kinds = 1 << iota
	HasUnchanged
	HasText
	HasBinary
)

// Tuple is a row of a message, checked but not taken apart: Bytes holds, for each
// of its Len columns, the kind and, for Text and Binary, a length (int32,
// big-endian) and the value. An array element, a parameter and a field of COPY
// BINARY are that same length and value, so that most rows travel on by copying.
type Tuple struct {
	Bytes []byte
	Len   int
	Kinds Kinds
}

func (t *Tuple) decode(in *input) error {
	n := int(in.uint16())
	if in.err != nil {
		return in.err
	}
	b := in.b
	pos := 0
	kinds := Kinds(0)
	for range n {
		if pos >= len(b) {
			return ErrShort
		}
		switch b[pos] {
		case Binary:
			kinds |= HasBinary
		case Text:
			kinds |= HasText
		case Null:
			kinds |= HasNull
			pos++
			continue
		case Unchanged:
			kinds |= HasUnchanged
			pos++
			continue
		default:
			return fmt.Errorf("value of unknown kind %q", b[pos])
		}
		if len(b)-pos < 5 {
			return ErrShort
		}
		length := binary.BigEndian.Uint32(b[pos+1:])
		pos += 5
		if uint64(length) > uint64(len(b)-pos) {
			return ErrShort
		}
		pos += int(length)
	}
	*t = Tuple{Bytes: b[:pos], Len: n, Kinds: kinds}
	in.b = b[pos:]
	return nil
}

// Column is a column's kind and, for Text and Binary, its value.
type Column struct {
	Kind  byte
	Value []byte
}

// Next splits the first column off the bytes of a decoded tuple.
func Next(b []byte) (c Column, rest []byte) {
	if b[0] == Null || b[0] == Unchanged {
		return Column{Kind: b[0]}, b[1:]
	}
	end := 5 + int(binary.BigEndian.Uint32(b[1:]))
	return Column{Kind: b[0], Value: b[5:end]}, b[end:]
}

// Column returns the column at an index below Len, walking over those before.
func (t Tuple) Column(index int) Column {
	b := t.Bytes
	for range index {
		_, b = Next(b)
	}
	c, _ := Next(b)
	return c
}

// Columns appends all columns to dst and returns it.
func (t Tuple) Columns(dst []Column) []Column {
	b := t.Bytes
	for len(b) > 0 {
		var c Column
		c, b = Next(b)
		dst = append(dst, c)
	}
	return dst
}

// AppendColumn appends a column as a tuple's bytes have it.
func AppendColumn(dst []byte, c Column) []byte {
	dst = append(dst, c.Kind)
	if c.Kind == Null || c.Kind == Unchanged {
		return dst
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(c.Value)))
	return append(dst, c.Value...)
}

// KindsOf returns the kinds in a tuple's bytes.
func KindsOf(b []byte) Kinds {
	kinds := Kinds(0)
	for len(b) > 0 {
		switch b[0] {
		case Null:
			kinds |= HasNull
		case Unchanged:
			kinds |= HasUnchanged
		case Text:
			kinds |= HasText
		default:
			kinds |= HasBinary
		}
		_, b = Next(b)
	}
	return kinds
}
