// Package rowtext reads rows in PostgreSQL's text form of composite values (manual, "Composite
// Types", rowtypes.c). It is pure.
package rowtext

// Next takes one row off the front of text, which may hold several with nothing between them, and
// appends its fields to fields; a field that is NULL is nil. Bytes of fields may be those of text. It returns
// what is left, and whether there was a row.
func Next(fields [][]byte, text []byte) (_ [][]byte, rest []byte, ok bool) {
	if len(text) < 2 || text[0] != '(' {
		return fields, text, false
	}
	if text[1] == ')' {
		// No column, or one that is NULL: who knows their number tells.
		return append(fields, nil), text[2:], true
	}
	for i := 1; ; i++ {
		field, end := one(text, i)
		if end >= len(text) {
			return fields, text, false
		}
		fields = append(fields, field)
		switch text[end] {
		case ',':
			i = end
		case ')':
			return fields, text[end+1:], true
		default:
			return fields, text, false
		}
	}
}

// one reads the field that begins at i, and says where it ends.
func one(text []byte, i int) (field []byte, end int) {
	if i >= len(text) || text[i] == ',' || text[i] == ')' {
		return nil, i
	}
	begin := i
	for i < len(text) && text[i] != '"' && text[i] != '\\' && text[i] != ',' && text[i] != ')' {
		i++
	}
	if i < len(text) && (text[i] == ',' || text[i] == ')') {
		return text[begin:i:i], i
	}
	field = append([]byte{}, text[begin:i]...)
	inside := false
	for ; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			field = append(field, text[i])
		case c == '"' && inside && i+1 < len(text) && text[i+1] == '"':
			i++
			field = append(field, c)
		case c == '"':
			inside = !inside
		case !inside && (c == ',' || c == ')'):
			return field, i
		default:
			field = append(field, c)
		}
	}
	return nil, len(text)
}
