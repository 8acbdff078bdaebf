package member

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string][3]any{
		"patroni 4.0.7\n":                        {"4.0.7", 4, 0},
		"start-patroni 4.1.5":                    {"4.1.5", 4, 1},
		"etcd Version: 3.5.16\nGit SHA: 1.2.3\n": {"3.5.16", 3, 5},
		"etcd Version: v3.6.0-rc.1":              {"3.6.0", 3, 6},
		"nothing":                                {"", 0, 0},
		"99999999999999999999.1 is no version":   {"99999999999999999999.1", 9223372036854775807, 1},
	} {
		version, major, minor := parseVersion(text)
		if version != want[0] || major != want[1] || minor != want[2] {
			t.Errorf("%q: %q, %d, %d", text, version, major, minor)
		}
	}
}

// fake makes a program that tells a version.
func fake(t *testing.T, dir, name, version string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho '"+name+" "+version+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "twinspan-member-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv(instance.BinariesEnv, dir)
	t.Setenv("PATH", dir)
	t.Setenv(instance.CacheEnv, filepath.Join(dir, "none"))
	code := func(witness bool) string {
		_, err := Find(t.Context(), witness)
		return problem.CodeOf(err)
	}
	if c := code(false); c != "etcd_missing" {
		t.Errorf("no etcd: %q", c)
	}
	fake(t, dir, "etcd", "3.4.23")
	if c := code(true); c != "etcd_too_old" {
		t.Errorf("an old etcd: %q", c)
	}
	fake(t, dir, "etcd", "3.5.0")
	if c := code(true); c != "" {
		t.Errorf("a witness: %q", c)
	}
	if c := code(false); c != "patroni_missing" {
		t.Errorf("no Patroni: %q", c)
	}
	fake(t, dir, "patroni", "3.3.2")
	if c := code(false); c != "patroni_too_old" {
		t.Errorf("an old Patroni: %q", c)
	}
	fake(t, dir, "patroni", "4.0.0")
	if p, err := Find(t.Context(), false); err != nil || p.Patroni != filepath.Join(dir, "patroni") {
		t.Errorf("%+v, %v", p, err)
	}
}

func authority(t *testing.T) (Authority, Issued) {
	t.Helper()
	a, err := NewAuthority("bank")
	if err != nil {
		t.Fatal(err)
	}
	mine, err := a.Issue("member1", "db1.example.com", "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return a, mine
}

// Members let each other in, and nobody with a certificate of another authority.
func TestAuthority(t *testing.T) {
	a, mine := authority(t)
	other, theirs := authority(t)
	server, err := dialing(a.Certificate, mine)
	if err != nil {
		t.Fatal(err)
	}
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, server.RootCAs
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("x"))
			conn.Close()
		}
	}()
	dial := func(authority string, show Issued) error {
		config, err := dialing(authority, show)
		if err != nil {
			return err
		}
		conn, err := tls.Dial("tcp", l.Addr().String(), config)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	if err := dial(a.Certificate, mine); err != nil {
		t.Error(err)
	}
	if dial(a.Certificate, theirs) == nil {
		t.Error("a certificate of another authority was taken")
	}
	if dial(other.Certificate, mine) == nil {
		t.Error("a server of another authority was taken")
	}
}

var three = []Member{
	{Name: "member1", Host: "10.0.0.1", Postgres: 5432, REST: 8008, Client: 2379, Peer: 2380, Endpoint: "10.0.0.1:5022"},
	{Name: "member2", Host: "db2", Postgres: 5432, REST: 8008, Client: 2379, Peer: 2380, Endpoint: "db2:5022"},
	{Name: "vote", Host: "10.0.0.3", Client: 2379, Peer: 2380, Witness: true},
}

func read(t *testing.T, text []byte, err error) map[string]any {
	t.Helper()
	var out map[string]any
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEtcdConfig(t *testing.T) {
	text, err := etcdConfig(three[0], "scope", placesOf{"/i"}, map[string]string{"member2": "https://db2:2380", "member1": "https://10.0.0.1:2380"}, false)
	c := read(t, text, err)
	for key, want := range map[string]any{
		"initial-cluster": "member1=https://10.0.0.1:2380,member2=https://db2:2380", "initial-cluster-state": "existing",
		"listen-peer-urls": "https://10.0.0.1:2380", "advertise-client-urls": "https://10.0.0.1:2379", "listen-client-urls": "https://10.0.0.1:2379,https://127.0.0.1:2379",
	} {
		if c[key] != want {
			t.Errorf("%s is %v", key, c[key])
		}
	}
	for _, which := range []string{"client-transport-security", "peer-transport-security"} {
		if s := c[which].(map[string]any); s["client-cert-auth"] != true || s["trusted-ca-file"] != "/i/member/authority.crt" {
			t.Errorf("%s lets anybody in: %v", which, s)
		}
	}
	text, err = etcdConfig(three[1], "scope", placesOf{"/i"}, nil, true)
	if c := read(t, text, err); c["listen-peer-urls"] != "https://0.0.0.0:2380" || c["initial-cluster-state"] != "new" {
		t.Errorf("a member that is reached by its name: %v", c)
	}
}

func TestPatroniConfig(t *testing.T) {
	server := &instance.Server{Dir: "/i", Listen: "*", HBA: instance.HBAFor([]string{"10.0.0.0/8"}), Binaries: instance.Binaries{Dir: "/pg/bin", Major: 15}}
	text, err := patroniConfig(plan{self: three[0], others: three[1:], scope: "scope", places: placesOf{"/i"}, server: server, password: "secret"})
	c := read(t, text, err)
	at := func(path string) any {
		var v any = c
		for part := range strings.SplitSeq(path, "/") {
			m, ok := v.(map[string]any)
			if !ok {
				t.Fatalf("%s is not there", path)
			}
			v = m[part]
		}
		return v
	}
	for path, want := range map[string]any{
		"name": "member1", "restapi/verify_client": "required", "bootstrap/dcs/synchronous_mode": true, "bootstrap/dcs/postgresql/parameters/wal_level": "logical",
		"postgresql/listen": "*:5432", "postgresql/authentication/superuser/password": "secret", "postgresql/authentication/replication/sslmode": "verify-ca",
		"postgresql/parameters/hot_standby_feedback": "on", "postgresql/parameters/ssl": "on", "etcd3/protocol": "https",
	} {
		if got := at(path); got != want {
			t.Errorf("%s is %v", path, got)
		}
	}
	if hosts := at("etcd3/hosts"); !reflect.DeepEqual(hosts, []any{"10.0.0.1:2379", "db2:2379", "10.0.0.3:2379"}) {
		t.Errorf("etcds: %v", hosts)
	}
	lines := at("postgresql/pg_hba").([]any)
	if !slices.Contains(lines, any("hostssl all all 10.0.0.0/8 scram-sha-256")) || slices.ContainsFunc(lines, func(l any) bool {
		return strings.HasPrefix(l.(string), "host") && strings.HasSuffix(l.(string), "trust")
	}) {
		t.Errorf("pg_hba.conf: %v", lines)
	}
	// What all servers must have alike is in etcd alone: Patroni takes no other place for it.
	if local := at("postgresql/parameters").(map[string]any); slices.ContainsFunc(shared, func(name string) bool { _, there := local[name]; return there }) {
		t.Errorf("local settings: %v", local)
	}
}

func TestRecord(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); problem.CodeOf(err) != "member_none" || IsMember(dir) {
		t.Errorf("without a record: %v", err)
	}
	a, mine := authority(t)
	want := Record{Self: three[0], Founder: true, Scope: "s", Authority: a, Mine: mine, Seal: bytes.Repeat([]byte{7}, 32), Major: 15, Others: three[1:]}
	if err := want.Save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir)
	if err != nil || !reflect.DeepEqual(got, want) || !IsMember(dir) {
		t.Errorf("%+v, %v", got, err)
	}
	if info, err := os.Stat(recordPath(dir)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read the record: %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(recordPath(dir), []byte(`{"self":{"name":"x","host":"h","client":1,"peer":2,"witness":true},"unknown":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); problem.CodeOf(err) != "member_broken" {
		t.Errorf("an unknown field: %v", err)
	}
	for _, m := range []Member{{}, {Name: "Bad Name", Host: "h", Client: 1, Peer: 2, Witness: true}, {Name: "a", Host: "a b", Client: 1, Peer: 2, Witness: true}, {Name: "a", Host: "h", Client: 1, Peer: 70000, Witness: true},
		{Name: "a", Host: "h", Client: 1, Peer: 2}} {
		if m.check() == nil {
			t.Errorf("%+v was taken", m)
		}
	}
}

// What is shared arrives whole, what is gone goes, and a path that leads elsewhere is refused.
func TestShared(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	put := func(dir, path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(from, "identity/key.pem", "key")
	put(from, "peers/b.toml", "b")
	put(from, "peers/.new-1", "half")
	put(from, "twinspan.toml", "not shared")
	put(from, "backup/key", "secret")
	put(from, "backup/2/made", "/r")
	put(from, "backup/pgbackrest.conf", "each member's own")
	put(to, "peers/gone.toml", "gone")
	put(from, "backup/databases.json", strings.Repeat("x", mostShared+1))
	files, tooLong, err := ReadShared(from)
	if err != nil || len(files) != 4 || !slices.Equal(tooLong, []string{"backup/databases.json"}) {
		t.Fatalf("%v, %v, %v", files, tooLong, err)
	}
	// Directories that the server's user has to own are not made.
	if _, err := WriteShared(to, files); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(to, "backup")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of backups was made: %v", err)
	}
	put(to, "backup/2/made", "of before")
	if changed, err := WriteShared(to, files); err != nil || !changed {
		t.Errorf("%v, %v", changed, err)
	}
	if got, _, err := ReadShared(to); err != nil || !reflect.DeepEqual(got, files) {
		t.Errorf("%v, %v", got, err)
	}
	if changed, err := WriteShared(to, files); err != nil || changed {
		t.Errorf("once more: %v, %v", changed, err)
	}
	// The key stays whatever the others have, and with a directory that has nothing everything does.
	key := func() string {
		text, err := os.ReadFile(filepath.Join(to, "backup/key"))
		return fmt.Sprint(string(text), err)
	}
	delete(files, "backup/key")
	delete(files, "backup/2/made")
	if changed, err := WriteShared(to, files); err != nil || changed || key() != "secret<nil>" {
		t.Errorf("%v, %v, %s", changed, err, key())
	}
	files["backup/policy.json"] = []byte("{}")
	if changed, err := WriteShared(to, files); err != nil || !changed || key() != "secret<nil>" {
		t.Errorf("%v, %v, %s", changed, err, key())
	}
	if _, err := os.Stat(filepath.Join(to, "backup/2/made")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is gone stays: %v", err)
	}
	for _, path := range []string{"identity/../x", "../x", "x", "identity/", "identity/.x", "run/lock", "peers/a/b", "backup/pgbackrest.conf", "backup/5/made", "backup/2/key"} {
		if _, err := WriteShared(to, Files{path: []byte("x")}); err == nil {
			t.Errorf("%q was written", path)
		}
	}
}

// What has changed is written to etcd, and what is gone goes there; a file that is only too long is
// left as it is there.
func TestChanges(t *testing.T) {
	c := Cluster{record: Record{Scope: "s"}, pushed: map[string][sha256.Size]byte{}}
	var err error
	if c.sealing, err = newSealing(bytes.Repeat([]byte{7}, 32)); err != nil {
		t.Fatal(err)
	}
	// pushed says what becomes of what is shared, "-" for what goes.
	pushed := func(files Files, tooLong ...string) map[string]string {
		list, next := c.changes(files, tooLong)
		c.pushed = next
		all := map[string]string{}
		for _, one := range list {
			path := strings.TrimPrefix(one.key, c.filesKey(""))
			all[path] = "-"
			if one.value != nil {
				text, err := c.sealing.open(one.key, one.value)
				if err != nil {
					t.Fatal(err)
				}
				all[path] = string(text)
			}
		}
		return all
	}
	const list, key, made = "backup/databases.json", "backup/key", "backup/2/made"
	for _, step := range []struct {
		name    string
		files   Files
		tooLong []string
		want    map[string]string
	}{
		{"first", Files{"peers/b": []byte("b"), list: []byte("1")}, nil, map[string]string{"peers/b": "b", list: "1"}},
		{"nothing new", Files{"peers/b": []byte("b"), list: []byte("1")}, nil, map[string]string{}},
		{"another, and one goes", Files{"peers/c": []byte("c"), list: []byte("2")}, nil,
			map[string]string{"peers/b": "-", "peers/c": "c", list: "2"}},
		{"too long", Files{list: []byte("2")}, []string{"peers/c"}, map[string]string{}},
		{"as long as before", Files{"peers/c": []byte("c"), list: []byte("2")}, nil, map[string]string{}},
		{"shorter again", Files{"peers/c": []byte("c"), list: []byte("3")}, nil, map[string]string{list: "3"}},
		{"of backups", Files{list: []byte("3"), key: []byte("k"), made: []byte("m")}, nil,
			map[string]string{"peers/c": "-", key: "k", made: "m"}},
		{"a repository is left out", Files{list: []byte("3"), key: []byte("k")}, nil, map[string]string{made: "-"}},
		{"it is there again", Files{list: []byte("3"), key: []byte("k"), made: []byte("m")}, nil,
			map[string]string{made: "m"}},
		{"the key is gone", Files{list: []byte("3"), made: []byte("m")}, nil, map[string]string{}},
		{"the directory is gone", Files{"peers/d": []byte("d")}, nil, map[string]string{"peers/d": "d"}},
		{"it is back", Files{"peers/d": []byte("d"), list: []byte("3"), key: []byte("k"), made: []byte("m")}, nil,
			map[string]string{}},
	} {
		if got := pushed(step.files, step.tooLong...); !maps.Equal(got, step.want) {
			t.Errorf("%s: %v, not %v", step.name, got, step.want)
		}
	}
}

func TestSeal(t *testing.T) {
	s, err := newSealing(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	sealed := s.seal("a", []byte("secret"))
	if text, err := s.open("a", sealed); err != nil || string(text) != "secret" || bytes.Contains(sealed, []byte("secret")) {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := s.open("b", sealed); err == nil {
		t.Error("it was opened under another key of etcd")
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := s.open("a", sealed); err == nil {
		t.Error("it was opened though it was changed")
	}
	if _, err := s.open("a", []byte("x")); err == nil {
		t.Error("it was opened though it was cut")
	}
}

func TestClash(t *testing.T) {
	if freeName(three) != "member3" {
		t.Error(freeName(three))
	}
	for code, m := range map[string]Member{
		"":                     {Name: "member3", Host: "10.0.0.4", Postgres: 5432, REST: 8008, Client: 2379, Peer: 2380, Endpoint: "10.0.0.4:5022"},
		"member_name_taken":    {Name: "member2", Host: "10.0.0.4", Postgres: 5432, REST: 8008, Client: 2379, Peer: 2380},
		"member_address_taken": {Name: "member3", Host: "10.0.0.3", Postgres: 5432, REST: 8008, Client: 2000, Peer: 2380},
	} {
		if err := clash(three, m); problem.CodeOf(err) != code && (err != nil || code != "") {
			t.Errorf("%+v: %v", m, err)
		}
	}
}

// A leader loses its lead by absence only where all that are not away say so, and are more than half.
func TestAgreed(t *testing.T) {
	list := []Seen{{Member: Member{Name: "a"}, Votes: true}, {Member: Member{Name: "b"}, Votes: true}, {Member: Member{Name: "c"}, Votes: true}}
	for _, c := range []struct {
		gone []string
		said map[string][]string
		want bool
	}{
		{[]string{"a"}, map[string][]string{"b": {"a"}, "c": {"a"}}, true},
		{[]string{"a"}, map[string][]string{"b": {"a"}}, false},           // c sees it
		{[]string{"a", "c"}, map[string][]string{"b": {"a", "c"}}, false}, // b is the one that is cut off
		{[]string{"a"}, map[string][]string{"b": {"a"}, "c": {"b"}}, false},
	} {
		if got := agreed("a", list, c.gone, c.said); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	var a absence
	now := time.Now()
	list[0].Answers, list[1].Alive = true, true
	if gone := a.away(list, now); len(gone) != 0 {
		t.Errorf("at first: %v", gone)
	}
	if gone := a.away(list, now.Add(absentAfter+time.Second)); !slices.Equal(gone, []string{"c"}) {
		t.Errorf("later: %v", gone)
	}
}
