package pgbackrest

import (
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/problem"
)

// What pgBackRest 2.60 says, with names changed.
const (
	infoText = `[{"archive":[{"database":{"id":1,"repo-key":1},"id":"15-1","max":"000000010000000000000005","min":"000000010000000000000001"}],"backup":[` +
		`{"archive":{"start":"000000010000000000000004","stop":"000000010000000000000004"},"database":{"id":1,"repo-key":1},"error":true,"info":{"delta":100,"repository":{"delta":20},"size":23000000},"label":"20261129-235005F_20261130-000010D","lsn":{"start":"0/4000028","stop":"0/4000100"},"prior":"20261129-235005F","reference":["20261129-235005F"],"timestamp":{"start":1795996810,"stop":1795996811},"type":"diff"},` +
		`{"archive":{"start":"000000010000000000000002","stop":"000000010000000000000002"},"backrest":{"format":5,"version":"2.60.0"},"database":{"id":1,"repo-key":1},"database-ref":[{"name":"Weird \"Name","oid":16384},{"name":"postgres","oid":5}],"error":false,"info":{"delta":22992581,"repository":{"delta":2857800,"delta-map":24352,"size-map":24352},"size":22992581},"label":"20261129-235005F","lsn":{"start":"0/2000028","stop":"0/2000100"},"prior":null,"reference":null,"timestamp":{"start":1795996205,"stop":1795996206},"type":"full"}` +
		`],"cipher":"aes-256-cbc","db":[{"id":1,"repo-key":1,"system-id":7713744956740552629,"version":"15"}],"name":"main","repo":[{"cipher":"aes-256-cbc","key":1,"status":{"code":0,"message":"ok"}}],"status":{"code":0,"lock":{"backup":{"held":false},"restore":{"held":false}},"message":"ok"}}]`
	wrongKeyInfo = `[{"archive":[],"backup":[],"cipher":"aes-256-cbc","db":[],"name":"main","repo":[{"cipher":"aes-256-cbc","key":1,"status":{"code":99,"message":"[FormatError] unable to load info file '/r/backup/main/backup.info' or '/r/backup/main/backup.info.copy':\nFormatError: key/value found outside of section at line 1: ` + "\x01\x17\xff" + `m"}}],"status":{"code":99,"message":"other"}}]`
	verifyText   = `stanza: main
status: error
  archiveId: 15-1, total WAL checked: 12, total valid WAL: 11
    missing: 0, checksum invalid: 0, size invalid: 1, other: 0
  backup: 20261129-235005F, status: invalid, total files checked: 964, total valid files: 963
    missing: 0, checksum invalid: 1, size invalid: 0, other: 0
  backup: 20261130-235005F, status: valid, total files checked: 964, total valid files: 964
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: 20261130-335005F, status: manifest missing, total files checked: 0, total valid files: 0
`
)

func TestInfo(t *testing.T) {
	s, err := parseInfo([]byte(infoText), "main")
	if err != nil {
		t.Fatal(err)
	}
	sets := s.contents().Sets
	if len(sets) != 2 || sets[0].Label != "20261129-235005F" || sets[0].Kind != backup.Full || sets[0].Damaged || sets[0].Needs != nil {
		t.Fatalf("%+v", sets)
	}
	d := sets[1]
	if d.Kind != backup.Differential || !d.Damaged || !slices.Equal(d.Needs, []string{"20261129-235005F"}) || d.To.String() != "0/4000100" ||
		!d.Stop.Equal(time.Date(2026, 11, 30, 0, 0, 11, 0, time.UTC)) || d.Bytes != 23000000 || d.Stored != 20 {
		t.Errorf("%+v", d)
	}
	if held := s.Backup[1].databases(); len(held) != 2 || held[0] != (backup.Database{Name: `Weird "Name`, OID: 16384}) {
		t.Errorf("%+v", held)
	}
	if _, err := parseInfo([]byte(wrongKeyInfo), "main"); problem.CodeOf(err) != "backup_key_wrong" {
		t.Error(err)
	}
	gone := strings.Replace(wrongKeyInfo, `"code":99,"message":"[F`, `"code":1,"message":"[F`, 1)
	if _, err := parseInfo([]byte(gone), "main"); problem.CodeOf(err) != "backup_repository_missing" {
		t.Error(err)
	}
	if s, err := parseInfo([]byte("[]"), "main"); err != nil || len(s.contents().Sets) > 0 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "{", `[{"name":1}]`} {
		if _, err := parseInfo([]byte(bad), "main"); problem.CodeOf(err) != "pgbackrest_answer" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestVerifyText(t *testing.T) {
	r, ok := parseVerify(verifyText)
	want := []backup.Finding{
		{Text: "log: size invalid: 1"},
		{Set: "20261129-235005F", Text: "invalid, checksum invalid: 1"},
		{Set: "20261130-335005F", Text: "manifest missing"},
	}
	if !ok || r.Sets != 3 || r.Segments != 12 || !slices.Equal(r.Findings, want) {
		t.Errorf("%t %+v", ok, r)
	}
	if _, ok := parseVerify("nothing of the kind"); ok {
		t.Error("understood")
	}
}

func TestFailures(t *testing.T) {
	for said, code := range map[string]string{
		"P00  ERROR: [103]: unable to find a valid repository:\n            repo1: [CryptoError] unable to load info file '/r/archive/main/archive.info'\n HINT: has a stanza-create been performed?":                               "backup_key_wrong",
		"P00  ERROR: [041]: raised from local-1 shim protocol: unable to write '/r/x': [28] No space left on device":                                                                                                                "backup_repository_full",
		"P00  ERROR: [050]: unable to acquire lock on file '/d/run/main-backup-1.lock': Resource temporarily unavailable":                                                                                                           "backup_busy",
		"P00  ERROR: [047]: unable to create path '/r/archive': [13] Permission denied":                                                                                                                                             "backup_repository_unwritable",
		"P00  ERROR: [028]: backup and archive info files exist but do not match the database":                                                                                                                                      "backup_repository_foreign",
		"P00  ERROR: [055]: unable to open missing file '/r/x'\n HINT: has a stanza-create been performed?":                                                                                                                         "backup_repository_missing",
		"P00  ERROR: [103]: unable to find a valid repository:\n repo1: [HostConnectError] unable to load info file '/x': unable to connect to '127.0.0.1:1': [111] Connection refused\n HINT: has a stanza-create been performed?": "backup_store_unreachable",
		"P00  ERROR: [103]: unable to find a valid repository:\n repo1: [ProtocolError] unable to load info file '/x':\n HTTP request failed with 403 (Forbidden):\n HINT: has a stanza-create been performed?":                     "backup_store_refused",
		"P00  ERROR: [039]: HTTP request failed with 404 (Not Found):":                                                                                                                                                              "backup_bucket_missing",
		"P00  ERROR: [104]: archive-push command encountered error(s):\n repo1: [FileWriteError] unable to write '/r/x.zst.pgbackrest.tmp'\n":                                                                                       "backup_repository_full",
		"P00  ERROR: [104]: archive-push command encountered error(s):\n repo1: [FileWriteError] unable to write '/r/x.zst.pgbackrest.tmp': [5] Input/output error\n":                                                               "backup_failed",
		"P00  ERROR: [099]: something else": "backup_failed",
		"":                                  "backup_failed",
	} {
		p := failure(said)
		if p.Code != code || p.Hint == "" || strings.ContainsAny(p.Text, "\n\x01") {
			t.Errorf("%q: %+v", said, p)
		}
	}
	if p := failure("ERROR: [099]: something else"); !strings.HasSuffix(p.Text, "[099] something else") {
		t.Error(p.Text)
	}
}

func TestVersions(t *testing.T) {
	for said, want := range map[string]bool{"pgBackRest 2.45": false, "pgBackRest 2.57.0": false, "pgBackRest 2.58": true, "pgBackRest 2.60.0": true, "pgBackRest 3.0dev": true, "": false} {
		v, ok := parseVersion(said)
		if ok && v.enough() != want || !ok && want {
			t.Errorf("%q: %v %t", said, v, ok)
		}
	}
}

func TestSegmentNames(t *testing.T) {
	const text = `{".":{"type":"path"},"15-1/0000000100000000/000000010000000000000002-82.zst":{"type":"file"},"15-1/0000000100000000/000000010000000000000002.00000028.backup":{"type":"file"},` +
		`"15-1/0000000100000000":{"type":"path"},"15-1/0000000100000000/000000010000000000000001-7a.zst":{"type":"file"},"15-1/00000002.history":{"type":"file"},"archive.info":{"type":"file"},` +
		`"14-0/0000000100000000/000000010000000000000009-7a.zst":{"type":"file"}}`
	got, err := parseSegments([]byte(text))
	want := map[string]string{"000000010000000000000001": "15-1/0000000100000000/000000010000000000000001-7a.zst",
		"000000010000000000000002": "15-1/0000000100000000/000000010000000000000002-82.zst"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

// The words of a command come out of sh, and of what the server does to percent signs, as they went in.
func TestQuoting(t *testing.T) {
	const odd = `a 100% b's "x" $HOME \`
	out, err := exec.CommandContext(t.Context(), "sh", "-c", shell("printf", "%s", odd)).Output()
	if err != nil || string(out) != odd {
		t.Errorf("%q, %v", out, err)
	}
	if got := inCommand("100%"); got != "'100%%'" {
		t.Error(got)
	}
}
