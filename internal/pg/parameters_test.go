package pg

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

// What libpq takes for itself is never sent to the server as a setting.
func TestParametersOfLibpq(t *testing.T) {
	for _, s := range []string{
		"postgres://u@h/db?sslmode=require&keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=5&tcp_user_timeout=5000",
		"host=h user=u dbname=db sslmode=require keepalives=0 gssencmode=disable fallback_application_name=x sslcompression=0 sslcrl='' requirepeer=''",
		"host=h hostaddr=127.0.0.1 user=u dbname=db sslmode=require ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.3",
		"host=h user=u dbname=db sslmode=require require_auth=scram-sha-256 channel_binding=require load_balance_hosts=disable target_session_attrs=read-write",
	} {
		d, err := ParseDSN(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if len(d.config.RuntimeParams) > 0 {
			t.Errorf("%s sends the settings %v", s, d.config.RuntimeParams)
		}
		if strings.Contains(s, "TLSv1.3") && (d.config.TLSConfig.MinVersion != tls.VersionTLS13 || d.config.TLSConfig.MaxVersion != tls.VersionTLS13) {
			t.Errorf("%s: TLS from %x to %x", s, d.config.TLSConfig.MinVersion, d.config.TLSConfig.MaxVersion)
		}
	}
	d, err := ParseDSN("host=h user=u options='-c geqo=off' work_mem=1MB")
	if err != nil || d.config.RuntimeParams["options"] != "-c geqo=off" || d.config.RuntimeParams["work_mem"] != "1MB" {
		t.Errorf("settings of the server are %v (%v)", d.config.RuntimeParams, err)
	}
}

func TestParametersRefused(t *testing.T) {
	for s, code := range map[string]string{
		"host=h gssencmode=require":             "dsn_unsupported",
		"host=h sslcrl=/tmp/list":               "dsn_unsupported",
		"host=/tmp requirepeer=postgres":        "dsn_unsupported",
		"host=h scram_client_key=c2VjcmV0":      "dsn_unsupported",
		"host=h keepalives_idle=often":          "dsn_invalid",
		"host=h hostaddr=elsewhere":             "dsn_invalid",
		"host=a,b hostaddr=127.0.0.1":           "dsn_invalid",
		"host=h ssl_min_protocol_version=SSLv3": "dsn_invalid",
	} {
		_, err := ParseDSN(s)
		var p *problem.Error
		if !errors.As(err, &p) || p.Code != code {
			t.Errorf("%s: %v, want %s", s, err, code)
		} else if strings.Contains(p.Error()+p.Hint, "c2VjcmV0") {
			t.Errorf("%s: the error shows a secret: %v", s, p)
		}
	}
}

// The address leads to the server, the name is what its certificate is checked by.
func TestHostAddress(t *testing.T) {
	for s, want := range map[string]string{
		"host=a.invalid,b.invalid hostaddr=127.0.0.7,::1 user=u":         "a.invalid 127.0.0.7 b.invalid ::1",
		"postgres://u@a.invalid:5/db?hostaddr=127.0.0.7&sslmode=require": "a.invalid 127.0.0.7",
		"hostaddr=127.0.0.7 user=u":                                      "127.0.0.7 127.0.0.7",
		"postgres:///db?hostaddr=127.0.0.7":                              "127.0.0.7 127.0.0.7",
	} {
		t.Setenv("PGHOST", "")
		d, err := ParseDSN(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		hosts, _ := d.members()
		var got []string
		for _, h := range hosts {
			list, err := d.config.LookupFunc(t.Context(), h)
			if err != nil {
				t.Fatal(err)
			}
			got = append(append(got, h), list...)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s leads to %v, want %s", s, got, want)
		}
		if d.config.TLSConfig != nil && d.config.TLSConfig.ServerName != "" && d.config.TLSConfig.ServerName != hosts[0] {
			t.Errorf("%s: the certificate is checked by %s", s, d.config.TLSConfig.ServerName)
		}
	}
}

// pg_dump, which is run without the string, gets the parameters of its service.
func TestServiceIsPassedOn(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	own := write("own.conf", "[mine]\nhost=own.invalid\nuser=u\ndbname=db\nsslmode=require\nkeepalives_idle=30\n")
	write("pg_service.conf", "[everybodys]\nhost=all.invalid\nuser=u\ndbname=db\nsslmode=prefer\nchannel_binding=disable\n")
	t.Setenv("PGSYSCONFDIR", dir)
	t.Setenv("PGSERVICEFILE", own)
	for s, want := range map[string][]string{
		"service=mine":                              {"PGHOST=own.invalid", "PGSSLMODE=require", "PGDATABASE=db"},
		"service=mine sslmode=prefer":               {"PGHOST=own.invalid", "PGSSLMODE=prefer"},
		"postgres:///other?service=mine":            {"PGHOST=own.invalid", "PGSSLMODE=require", "PGDATABASE=other"},
		"service=everybodys":                        {"PGHOST=all.invalid", "PGSSLMODE=prefer", "PGCHANNELBINDING=disable"},
		"service=mine servicefile='" + own + "'":    {"PGSSLMODE=require"},
		"postgres://?service=everybodys&user=other": {"PGUSER=other", "PGSSLMODE=prefer"},
	} {
		d, err := ParseDSN(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		env := d.Environ("t", "")
		for _, w := range want {
			if !slices.Contains(env, w) {
				t.Errorf("%s: %s is missing in %v", s, w, slices.DeleteFunc(env, func(kv string) bool { return !strings.HasPrefix(kv, "PG") }))
			}
		}
	}
	if _, err := ParseDSN("service=nobodys"); err == nil {
		t.Error("a service that is in no file is taken")
	}
}
