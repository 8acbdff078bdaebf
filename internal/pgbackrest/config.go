package pgbackrest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	credentialsFile = "credentials.json"
	gcsKeyFile      = "gcs-key.json"
	cipherPass      = "repo1-cipher-pass=" // begins the line with the key
)

// SetCredentials keeps what opens the repository, an object store.
func (e *Engine) SetCredentials(c backup.Credentials) error {
	if err := e.makeDirs(); err != nil {
		return err
	}
	text, err := json.Marshal(c)
	if err != nil {
		return problem.Wrap(err, problem.Internal, "internal", "write the credentials")
	}
	return e.Server.PutFile(e.path(credentialsFile), append(text, '\n'))
}

// Credentials are those of the repository; none of a directory.
func (e *Engine) Credentials() (backup.Credentials, error) {
	if e.credentials != nil {
		return e.credentials, nil
	}
	var c backup.Credentials
	text, err := os.ReadFile(e.path(credentialsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return nil, problem.Wrap(err, problem.Invalid, "backup_credentials_invalid", "the credentials of a repository cannot be read").On(e.path(credentialsFile)).
			WithHint("give them again: twinspan backup policy --add-repository with --credentials")
	}
	return c, nil
}

// configure writes the configuration of pgBackRest.
func (e *Engine) configure(place backup.Place, key, program string) error {
	credentials, err := e.Credentials()
	if err != nil {
		return err
	}
	if err := credentials.Validate(place.Kind); err != nil {
		return problem.As(err).On(e.place())
	}
	if service := credentials["service"]; service != "" {
		if err := e.Server.PutFile(e.path(gcsKeyFile), []byte(service)); err != nil {
			return err
		}
	}
	return e.Server.PutFile(e.path(configFile), e.config(place, credentials, key, program))
}

// config renders pgbackrest.conf. No value has a line end: those who take them in see to it.
func (e *Engine) config(place backup.Place, c backup.Credentials, key, program string) []byte {
	lines := []string{
		"# Written by twinspan from policy, key and credentials in " + e.Home,
		"[global]",
		"repo1-path=" + place.Path,
		"repo1-cipher-type=" + Cipher,
		cipherPass + key,
		// One request for many small files, and only the changed parts of large ones.
		"repo1-bundle=y", "repo1-block=y",
		"repo1-retention-full-type=time",
		fmt.Sprintf("repo1-retention-full=%d", e.Policy().RetentionDays),
		"compress-type=zst", "compress-level=3",
		"process-max=2",
		"start-fast=y",
		"archive-timeout=120",
		"log-path=" + e.path("log"), "lock-path=" + e.path("run"),
		"log-level-console=off", "log-level-stderr=warn", "log-level-file=info", "log-timestamp=y",
		// Where a wrapper starts it, it must not start itself again without.
		"cmd=" + program,
	}
	lines = append(lines, e.store(place, c)...)
	lines = append(lines,
		"["+Stanza+"]",
		"pg1-path="+e.Server.DataDir(),
		fmt.Sprintf("pg1-port=%d", e.Server.Port),
		"pg1-user="+instance.Superuser,
	)
	if dir := e.Server.SocketDir(); dir != "" {
		lines = append(lines, "pg1-socket-path="+dir)
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// store renders what tells of an object store.
func (e *Engine) store(place backup.Place, c backup.Credentials) (lines []string) {
	add := func(name, value string) {
		if value != "" {
			lines = append(lines, "repo1-"+name+"="+value)
		}
	}
	if place.Kind != backup.Directory {
		add("type", string(place.Kind))
		add("storage-ca-file", place.Options["ca-file"])
		// What does not answer is told so soon.
		lines = append(lines, "io-timeout=20")
	}
	switch place.Kind {
	case backup.S3:
		add("s3-bucket", place.Bucket)
		for _, name := range []string{"endpoint", "region", "uri-style"} {
			add("s3-"+name, place.Options[name])
		}
		add("s3-key", c["key"])
		add("s3-key-secret", c["secret"])
		add("s3-token", c["token"])
	case backup.Azure:
		add("azure-container", place.Bucket)
		for _, name := range []string{"account", "endpoint", "uri-style"} {
			add("azure-"+name, place.Options[name])
		}
		if c["sas"] != "" {
			add("azure-key-type", "sas")
		}
		add("azure-key", c["key"]+c["sas"])
	case backup.GCS:
		add("gcs-bucket", place.Bucket)
		add("gcs-endpoint", place.Options["endpoint"])
		if c["token"] != "" {
			add("gcs-key-type", "token")
			add("gcs-key", c["token"])
		} else {
			add("gcs-key", e.path(gcsKeyFile))
		}
	}
	return lines
}
