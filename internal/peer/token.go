package peer

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"log/slog"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// The shape of an invitation token. docs/format/peer.md draws it.
const (
	tokenPrefix   = "twinspan1:"
	tokenID       = 8
	tokenSecret   = 20
	tokenCheck    = 4
	maxAddresses  = 8
	maxToken      = 4 << 10 // of its text
	tokenFixed    = 8 + fingerprintSize + tokenID + tokenSecret
	tokenShortest = tokenFixed + 1 + 1 + tokenCheck
)

// token is what an invitation says to the one who joins. It holds a secret: it prints as
// a placeholder, and only encode writes it out.
type token struct {
	Expires     time.Time // whole seconds
	Fingerprint [fingerprintSize]byte
	ID          [tokenID]byte
	Secret      [tokenSecret]byte
	Name        string   // what the inviter calls itself
	Addresses   []string // where to dial it, the best first
}

// String implements fmt.Stringer without the secret.
func (t token) String() string { return "invitation of " + t.Name }

// GoString implements fmt.GoStringer without the secret.
func (t token) GoString() string { return t.String() }

// LogValue implements slog.LogValuer without the secret.
func (t token) LogValue() slog.Value { return slog.StringValue(t.String()) }

func (t token) encode() string {
	b := binary.BigEndian.AppendUint64(nil, uint64(t.Expires.Unix()))
	b = append(b, t.Fingerprint[:]...)
	b = append(b, t.ID[:]...)
	b = append(b, t.Secret[:]...)
	b = append(b, byte(len(t.Name)))
	b = append(b, t.Name...)
	b = append(b, byte(len(t.Addresses)))
	for _, a := range t.Addresses {
		b = binary.BigEndian.AppendUint16(b, uint16(len(a)))
		b = append(b, a...)
	}
	sum := sha256.Sum256(b)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:tokenCheck]...))
}

// parseToken reads a token. A checksum finds those that were not copied whole. The error
// repeats nothing of the text.
func parseToken(text string) (token, error) {
	text = strings.TrimSpace(text)
	bad := func(why string) (token, error) {
		return token{}, problem.New(problem.Invalid, "invitation_garbled", "not an invitation token: %s", why).
			WithHint("copy the whole line that 'twinspan peer invite' printed")
	}
	encoded, ok := strings.CutPrefix(text, tokenPrefix)
	switch {
	case len(text) > maxToken:
		return bad("too long")
	case !ok:
		return bad("it does not begin with " + tokenPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(b) < tokenShortest || strings.ContainsAny(encoded, "\r\n") {
		return bad("it is not complete")
	}
	body, check := b[:len(b)-tokenCheck], b[len(b)-tokenCheck:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:tokenCheck], check) {
		return bad("it is not complete, or was changed")
	}
	t, ok := decodeToken(body)
	if !ok {
		return bad("its content is not valid")
	}
	return t, nil
}

func decodeToken(b []byte) (t token, ok bool) {
	seconds := binary.BigEndian.Uint64(b)
	if seconds > 1<<40 {
		return t, false
	}
	t.Expires = time.Unix(int64(seconds), 0).UTC()
	b = b[8:]
	for _, field := range [][]byte{t.Fingerprint[:], t.ID[:], t.Secret[:]} {
		b = b[copy(field, b):]
	}
	length := int(b[0])
	if b = b[1:]; len(b) < length+1 {
		return t, false
	}
	t.Name, b = string(b[:length]), b[length:]
	count := int(b[0])
	b = b[1:]
	if !ValidName(t.Name) || count < 1 || count > maxAddresses {
		return t, false
	}
	for range count {
		if len(b) < 2 {
			return t, false
		}
		length := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; len(b) < length {
			return t, false
		}
		address := string(b[:length])
		if address == "" || checkEndpoint(address) != nil {
			return t, false
		}
		t.Addresses, b = append(t.Addresses, address), b[length:]
	}
	return t, len(b) == 0
}
