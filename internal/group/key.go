package group

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/twinspan/twinspan/internal/pgoutput"
)

// appendKey appends a tuple's key in a form in which equal keys, and only they,
// have equal bytes. It says false when the tuple does not hold the whole key.
func appendKey(dst []byte, key []KeyColumn, t pgoutput.Tuple) ([]byte, bool) {
	b, at := t.Bytes, 0
	for _, k := range key {
		if k.Column < at {
			b, at = t.Bytes, 0
		}
		for ; at < k.Column && len(b) > 0; at++ {
			_, b = pgoutput.Next(b)
		}
		if len(b) == 0 {
			return dst, false
		}
		c, _ := pgoutput.Next(b)
		if c.Kind != pgoutput.Text && c.Kind != pgoutput.Binary {
			return dst, false
		}
		start := len(dst)
		dst = append(dst, 0, 0, 0, 0)
		dst = appendCanonical(dst, k.Canon, c)
		binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	}
	return dst, true
}

// KeyChanged says whether an update changed a byte of its key: then it is another
// row for every statement after, even where the two keys are equal.
func KeyChanged(key []KeyColumn, old, row pgoutput.Tuple) bool {
	for _, k := range key {
		if k.Column >= old.Len || k.Column >= row.Len {
			return true
		}
		a, b := old.Column(k.Column), row.Column(k.Column)
		if b.Kind == pgoutput.Unchanged {
			continue
		}
		if a.Kind != b.Kind || !bytes.Equal(a.Value, b.Value) {
			return true
		}
	}
	return false
}

func appendCanonical(dst []byte, canon Canon, c pgoutput.Column) []byte {
	v := c.Value
	text := c.Kind == pgoutput.Text
	switch canon {
	case Numeric:
		if text {
			return append(dst, trimNumeric(v)...)
		}
		// numeric_send: digits, weight, sign, display scale, the digits without
		// trailing zeros. Only the display scale does not count.
		if len(v) >= 8 {
			return append(append(dst, v[:6]...), v[8:]...)
		}
	case Float4:
		if !text && len(v) == 4 {
			f := math.Float32frombits(binary.BigEndian.Uint32(v))
			return binary.BigEndian.AppendUint32(dst, math.Float32bits(float32(plain(float64(f)))))
		}
		return append(dst, trimFloat(v)...)
	case Float8:
		if !text && len(v) == 8 {
			f := math.Float64frombits(binary.BigEndian.Uint64(v))
			return binary.BigEndian.AppendUint64(dst, math.Float64bits(plain(f)))
		}
		return append(dst, trimFloat(v)...)
	case Blank:
		return append(dst, bytes.TrimRight(v, " ")...)
	}
	return append(dst, v...)
}

// plain returns the one representative of zeros and of NaNs.
func plain(f float64) float64 {
	switch {
	case f == 0:
		return 0
	case math.IsNaN(f):
		return math.NaN()
	}
	return f
}

// trimFloat does for the shortest exact text of a float what plain does.
func trimFloat(v []byte) []byte {
	if string(v) == "-0" {
		return v[1:]
	}
	return v
}

// trimNumeric takes the trailing zeros off a fraction.
func trimNumeric(v []byte) []byte {
	if bytes.IndexByte(v, '.') < 0 {
		return v
	}
	return bytes.TrimSuffix(bytes.TrimRight(v, "0"), []byte("."))
}
