//go:build backup

package test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// What opens the stores. Azurite's account is the one that everybody knows (its documentation).
const (
	s3Secret     = "hunter2-s3-secret"
	gcsToken     = "hunter2-gcs-token"
	azureAccount = "devstoreaccount1"
	azureKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// objectStore is a program on this machine that keeps objects.
type objectStore struct {
	t       *testing.T
	place   string
	secrets map[string]string
	port    int
	args    []string
	process *exec.Cmd
}

func (o *objectStore) start() {
	o.t.Helper()
	o.process = exec.Command(o.args[0], o.args[1:]...)
	o.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	o.process.Dir = o.t.TempDir()
	if err := o.process.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(o.end)
	pgtest.Await(o.t, 2*linktest.Patience, o.args[0]+" answers", func() error {
		answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", o.port))
		if err == nil {
			answer.Body.Close()
		}
		return err
	})
}

func (o *objectStore) end() {
	_ = o.process.Process.Kill()
	_ = o.process.Wait()
}

// startStores starts an S3, an Azure and a GCS, each with a bucket.
func startStores(t *testing.T) (s3, azure, gcs *objectStore) {
	t.Helper()
	dir := os.Getenv("TWINSPAN_STORES")
	if dir == "" {
		t.Fatal("TWINSPAN_STORES is not set: run make backup")
	}
	data := t.TempDir()
	port := [3]int{pgtest.FreePort(), pgtest.FreePort(), pgtest.FreePort()}
	s3 = &objectStore{t: t, port: port[0], secrets: map[string]string{"key": "k", "secret": s3Secret},
		place: fmt.Sprintf("s3://bucket/b?endpoint=http://127.0.0.1:%d&region=us-east-1&uri-style=path", port[0]),
		args: []string{filepath.Join(dir, "bin/gofakes3"), "-backend", "bolt", "-bolt.db", filepath.Join(data, "s3"),
			"-host", fmt.Sprintf("127.0.0.1:%d", port[0]), "-initialbucket", "bucket"}}
	azure = &objectStore{t: t, port: port[1], secrets: map[string]string{"key": azureKey},
		place: fmt.Sprintf("azure://container/b?account=%s&endpoint=http://127.0.0.1:%d&uri-style=path", azureAccount, port[1]),
		args: []string{"node", filepath.Join(dir, "azurite/node_modules/azurite/dist/src/blob/main.js"), "--blobHost", "127.0.0.1",
			"--blobPort", fmt.Sprint(port[1]), "--skipApiVersionCheck", "--disableTelemetry", "--silent", "--location", data}}
	gcs = &objectStore{t: t, port: port[2], secrets: map[string]string{"token": gcsToken},
		place: fmt.Sprintf("gcs://bucket/b?endpoint=http://127.0.0.1:%d", port[2]),
		args: []string{filepath.Join(dir, "bin/fake-gcs-server"), "-scheme", "http", "-host", "127.0.0.1", "-port", fmt.Sprint(port[2]),
			"-backend", "memory", "-public-host", fmt.Sprintf("127.0.0.1:%d", port[2])}}
	for _, o := range []*objectStore{s3, azure, gcs} {
		o.start()
	}
	request, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/storage/v1/b?project=p", port[2]), strings.NewReader(`{"name":"bucket"}`))
	if err != nil {
		t.Fatal(err)
	}
	mustAnswer(t, request)
	makeContainer(t, port[1])
	return s3, azure, gcs
}

// makeContainer makes the container of the Azure store ("Authorize with Shared Key" in its documentation).
func makeContainer(t *testing.T, port int) {
	t.Helper()
	request, err := http.NewRequest(http.MethodPut, fmt.Sprintf("http://127.0.0.1:%d/%s/container?restype=container", port, azureAccount), nil)
	if err != nil {
		t.Fatal(err)
	}
	date := time.Now().UTC().Format(http.TimeFormat)
	request.Header.Set("x-ms-date", date)
	request.Header.Set("x-ms-version", "2021-08-06")
	key, err := base64.StdEncoding.DecodeString(azureKey)
	if err != nil {
		t.Fatal(err)
	}
	sign := hmac.New(sha256.New, key)
	fmt.Fprintf(sign, "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:%s\nx-ms-version:2021-08-06\n/%[2]s/%[2]s/container\nrestype:container", date, azureAccount)
	request.Header.Set("Authorization", "SharedKey "+azureAccount+":"+base64.StdEncoding.EncodeToString(sign.Sum(nil)))
	mustAnswer(t, request)
}

func mustAnswer(t *testing.T, request *http.Request) {
	t.Helper()
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode >= 300 {
		t.Fatalf("%s: %s", request.URL, answer.Status)
	}
}

// repositoryAt is what is known of the repository at a place.
func repositoryAt(b api.Backups, place string) (r api.BackupRepository, sets int) {
	for _, one := range b.Repositories {
		if one.Place == place {
			r = one
		}
	}
	for _, set := range b.Backups {
		if set.Repository == r.Number {
			sets++
		}
	}
	return r, sets
}

// TestStores keeps backups in a directory and three object stores at once, lets one after the other fail, and restores out of each.
func TestStores(t *testing.T) {
	if !linktest.HaveBackups(t) {
		t.FailNow()
	}
	s3, azure, gcs := startStores(t)
	s := linktest.Managed(t, "b", nil)
	first := firstBackup(t, s)
	directory := first.Policy.Repository
	places := []string{directory, s3.place, azure.place, gcs.place}
	for _, o := range []*objectStore{s3, azure, gcs} {
		if _, err := s.Client.SetBackupPolicy(t.Context(), api.SetBackupPolicy{Add: &o.place}); code(err) != "backup_credentials_invalid" {
			t.Errorf("%s without credentials: %v", o.place, err)
		}
		if _, err := s.Client.SetBackupPolicy(t.Context(), api.SetBackupPolicy{Add: &o.place, Credentials: o.secrets}); err != nil {
			t.Fatal(err)
		}
	}
	all := func(what string, check func(r api.BackupRepository, sets int) error) {
		t.Helper()
		awaitBackups(t, s, what, func(b api.Backups) error {
			for _, place := range places {
				r, sets := repositoryAt(b, place)
				if err := check(r, sets); err != nil {
					return fmt.Errorf("%s: %w: %+v", place, err, r)
				}
			}
			return nil
		})
	}
	whole := func(least int) func(r api.BackupRepository, sets int) error {
		return func(r api.BackupRepository, sets int) error {
			if !r.Known || sets < least || len(r.Problems) > 0 || r.Owed > 0 || r.Next == nil {
				return fmt.Errorf("%d backups", sets)
			}
			return nil
		}
	}
	all("a full backup in each", whole(1))
	pgtest.Exec(t, s.DSN("postgres"), `CREATE DATABASE sales`)
	pgtest.Exec(t, s.DSN("sales"), `CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 20000) g`)
	backupNow(t, s, "diff")
	all("another in each", whole(2))
	verified := func() api.BackupTask {
		t.Helper()
		task, err := s.Client.VerifyBackups(t.Context())
		return awaitTask(t, s, task, err)
	}
	if v := verified(); v.State != "done" || len(v.Parts) != 4 || v.Verified.Backups < 8 || len(v.Verified.Findings) > 0 {
		t.Fatalf("%+v, %+v", v, v.Verified)
	}

	t.Run("one is away", func(t *testing.T) {
		s3.end()
		rows := func(from int) {
			for i := range 4 {
				pgtest.Exec(t, s.DSN("sales"), fmt.Sprintf(`INSERT INTO t VALUES (%d, 'away')`, from+i), `SELECT pg_switch_wal()`)
			}
		}
		rows(100001)
		awaitBackups(t, s, "the store that is away is named, and has missed log", func(b api.Backups) error {
			r, _ := repositoryAt(b, s3.place)
			if r.Owed == 0 || !slices.Contains(codesOf(r.Problems), "backup_store_unreachable") || !slices.ContainsFunc(b.Problems, func(p api.Problem) bool { return p.Subject == s3.place }) {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		rows(100011)
		task, err := s.Client.BackupNow(t.Context(), api.BackupRequest{Type: "incr"})
		task = awaitTask(t, s, task, err)
		for _, p := range task.Parts {
			if failed := p.Error != nil; failed != (p.Place == s3.place) {
				t.Errorf("%+v: %+v", p, p.Error)
			}
		}
		if failing := pgtest.Query(t, s.DSN("postgres"), `SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'`)[0][0]; len(failing) > 1 {
			t.Errorf("the server keeps %s files of log", failing)
		}
		s3.start()
		all("the store has what it missed", whole(2))
		if v := verified(); v.State != "done" || len(v.Verified.Findings) > 0 {
			t.Errorf("%+v, %+v", v, v.Verified)
		}
	})

	t.Run("credentials", func(t *testing.T) {
		wrong := map[string]string{"key": base64.StdEncoding.EncodeToString([]byte("hunter2-azure-wrong"))}
		if _, err := s.Client.SetBackupPolicy(t.Context(), api.SetBackupPolicy{Add: &azure.place, Credentials: wrong}); err != nil {
			t.Fatal(err)
		}
		awaitCode(t, s, "backup_store_refused", true)
		if _, err := s.Client.SetBackupPolicy(t.Context(), api.SetBackupPolicy{Add: &azure.place, Credentials: azure.secrets}); err != nil {
			t.Fatal(err)
		}
		all("the store lets in again", whole(2))
		secrets := []string{s3Secret, gcsToken, azureKey, wrong["key"]}
		noSecrets(t, s.Log(), "the agent's log", secrets)
		events, err := s.Client.Events(t.Context(), api.EventQuery{})
		if err != nil {
			t.Fatal(err)
		}
		noSecrets(t, fmt.Sprintf("%+v", events), "the events", secrets)
		err = filepath.WalkDir(s.Dir.Path(), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return nil // a server's file that has gone
			}
			if info, err := entry.Info(); err != nil || info.Mode().Perm()&0o077 == 0 && !strings.Contains(path, "/log/") || info.Size() > 16<<20 {
				return nil
			}
			if text, err := os.ReadFile(path); err == nil {
				noSecrets(t, string(text), path, secrets)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})

	want := pgtest.Query(t, s.DSN("sales"), `SELECT id, v FROM t ORDER BY id`)
	same := func(t *testing.T, dsn string) {
		t.Helper()
		if got := pgtest.Query(t, dsn, `SELECT id, v FROM t ORDER BY id`); len(want) < 20008 || !slices.EqualFunc(got, want, slices.Equal[[]string]) {
			t.Errorf("%d rows of %d, or others", len(got), len(want))
		}
	}
	t.Run("flipped bytes", func(t *testing.T) {
		b, err := s.Client.Backups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r, _ := repositoryAt(b, directory)
		full := b.Backups[slices.IndexFunc(b.Backups, func(o api.Backup) bool { return o.Repository == r.Number })]
		back := flip(t, filepath.Join(directory, "backup/main", full.Label), 200)
		v := verified()
		for _, p := range v.Parts {
			if found := p.Verified != nil && len(p.Verified.Findings) > 0; found != (p.Place == directory) {
				t.Errorf("%+v, %+v", p, p.Verified)
			}
		}
		// The restore goes on with another.
		out := restored(t, s, api.RestoreDatabase{Database: "sales", Name: "in turn", At: now(t, s)})
		mustBeCopied(t, out)
		same(t, s.DSN("in turn"))
		back()
		verified()
		awaitCode(t, s, "backup_damaged", false)
	})

	export, err := s.Client.ExportBackups(t.Context())
	if err != nil || len(export.Repositories) != 4 {
		t.Fatalf("%+v, %v", export, err)
	}
	pgtest.Exec(t, s.DSN("sales"), `CREATE TABLE last ()`)
	s.Stop()
	a := linktest.Managed(t, "a", func(c *config.Config) { c.Postgres.NoBackups = true })
	for i, r := range export.Repositories {
		from := &api.RestoreFrom{Repository: r.Place, Credentials: r.Credentials, Key: "wrong"}
		as := fmt.Sprintf("from %d", i)
		if v := restored(t, a, api.RestoreDatabase{Database: "sales", Name: as, At: now(t, a), From: from}); v.State != api.CopyFailed || v.Problem.Code != "backup_key_wrong" {
			t.Errorf("%s with a wrong key: %+v, %+v", r.Place, v, v.Problem)
		}
		from.Key = export.Key
		v := restored(t, a, api.RestoreDatabase{Database: "sales", Name: as, At: now(t, a), From: from})
		mustBeCopied(t, v)
		same(t, a.DSN(as))
		pgtest.Exec(t, a.DSN(as), `SELECT FROM last`)
	}
	// All of them at once, of which the first cannot be used.
	s3.end()
	from := &api.RestoreFrom{Repository: s3.place, Credentials: s3.secrets, Others: export.Repositories[2:], Key: export.Key}
	mustBeCopied(t, restored(t, a, api.RestoreDatabase{Database: "sales", Name: "in turn", At: now(t, a), From: from}))
	same(t, a.DSN("in turn"))
	leavesNothing(t, a)
}

func noSecrets(t *testing.T, text, where string, secrets []string) {
	t.Helper()
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("a secret is in %s", where)
		}
	}
}
