package peer

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sampleToken() token {
	t := token{Expires: time.Unix(1_900_000_000, 0).UTC(), Name: "primary-1", Addresses: []string{"10.0.0.1:5022", "[fe80::1]:5022", "db.example:65535"}}
	for i := range t.Fingerprint {
		t.Fingerprint[i] = byte(i)
	}
	for i := range t.Secret {
		t.Secret[i] = byte(200 + i)
	}
	t.ID = [tokenID]byte{1, 2, 3, 4, 5, 6, 7, 8}
	return t
}

func TestTokenRoundTrip(t *testing.T) {
	want := sampleToken()
	got, err := parseToken("\t" + want.encode() + "\n")
	check(t, err)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v", got)
	}
	for _, s := range []string{fmt.Sprint(want), fmt.Sprintf("%+v %#v %s", want, want, want)} {
		if strings.Contains(s, "200") || strings.Contains(s, "c8") {
			t.Errorf("the token prints as %q", s)
		}
	}
}

func TestTokenGarbled(t *testing.T) {
	text := sampleToken().encode()
	refuse := func(s string) {
		t.Helper()
		if _, err := parseToken(s); err == nil {
			t.Errorf("accepted %q", s)
		} else if strings.Contains(err.Error(), s) && len(s) > 12 {
			t.Errorf("the error repeats the token")
		}
	}
	for i := range len(text) {
		refuse(text[:i])
		refuse(text[i+1:])
		refuse(text[:i] + "A" + text[i:])
		for _, other := range []string{"A", "b", "\n", "=", " "} {
			if text[i:i+1] != other {
				refuse(text[:i] + other + text[i+1:])
			}
		}
	}
	refuse(strings.ToUpper(text))
	refuse(strings.Repeat(text, 100))
	for name, change := range map[string]func(*token){
		"no address":       func(t *token) { t.Addresses = nil },
		"bad address":      func(t *token) { t.Addresses = []string{"nowhere"} },
		"empty address":    func(t *token) { t.Addresses = []string{""} },
		"many addresses":   func(t *token) { t.Addresses = make([]string, 9) },
		"bad name":         func(t *token) { t.Name = "../x" },
		"far expiry":       func(t *token) { t.Expires = time.Unix(1<<41, 0) },
		"control in names": func(t *token) { t.Name = "a\nb" },
	} {
		bad := sampleToken()
		change(&bad)
		if _, err := parseToken(bad.encode()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
