// Package lsn holds log positions: the byte addresses in a PostgreSQL
// instance's write-ahead log that Twinspan counts progress in.
package lsn

import (
	"database/sql/driver"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a log position, a byte address in one instance's write-ahead log
// (PostgreSQL manual, "pg_lsn Type"). Positions of different instances do not
// compare. The zero value means "none".
type LSN uint64

// String prints the position as PostgreSQL does: two hexadecimal halves.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// Parse reads what String prints. Anything else is an error.
func Parse(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("log position %q: want two hexadecimal numbers with a slash between", s)
	}
	h, err := strconv.ParseUint(high, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("log position %q: %w", s, err)
	}
	l, err := strconv.ParseUint(low, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("log position %q: %w", s, err)
	}
	return LSN(h<<32 | l), nil
}

// Behind says how many bytes l lies before ahead, and 0 when it does not.
func (l LSN) Behind(ahead LSN) int64 {
	if l >= ahead {
		return 0
	}
	return int64(ahead - l)
}

// MarshalText implements encoding.TextMarshaler, so that JSON holds "X/X".
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *LSN) UnmarshalText(text []byte) error {
	v, err := Parse(string(text))
	if err != nil {
		return err
	}
	*l = v
	return nil
}

// Value implements driver.Valuer: the text that PostgreSQL's pg_lsn reads.
func (l LSN) Value() (driver.Value, error) { return l.String(), nil }

// Scan implements sql.Scanner for a pg_lsn in text form; NULL becomes 0.
func (l *LSN) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		*l = 0
		return nil
	case string:
		return l.UnmarshalText([]byte(v))
	case []byte:
		return l.UnmarshalText(v)
	}
	return fmt.Errorf("log position: cannot read a %T", src)
}
