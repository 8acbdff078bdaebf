package pgoutput

import "encoding/binary"

// xidLength is what a message within a streamed block has between its type and the
// rest: the (sub)transaction that it belongs to.
const xidLength = 4

// Unstream takes apart the head of a message within a streamed block: the
// (sub)transaction that it belongs to, and what follows it. The message is rest behind
// its type again when it is to stand outside of a block. ok is false for types
// that have no transaction there, and for a head that is too short.
func Unstream(head []byte) (xid uint32, rest []byte, ok bool) {
	if len(head) < 1+xidLength {
		return 0, nil, false
	}
	switch Type(head[0]) {
	case TypeInsert, TypeUpdate, TypeDelete, TypeRelation, TypeType, TypeTruncate, TypeMessage:
		return binary.BigEndian.Uint32(head[1:]), head[1+xidLength:], true
	}
	return 0, nil, false
}

// Append adds the message that the server sends for it.
func (m Begin) Append(b []byte) []byte {
	b = append(b, byte(TypeBegin))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Final))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Time))
	return binary.BigEndian.AppendUint32(b, m.XID)
}

// Append adds the message that the server sends for it.
func (c Commit) Append(b []byte) []byte {
	b = append(b, byte(TypeCommit), 0)
	b = binary.BigEndian.AppendUint64(b, uint64(c.LSN))
	b = binary.BigEndian.AppendUint64(b, uint64(c.End))
	return binary.BigEndian.AppendUint64(b, uint64(c.Time))
}
