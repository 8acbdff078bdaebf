package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/twinspan/twinspan/internal/durable"
	"github.com/twinspan/twinspan/internal/problem"
)

// Render returns the file for a configuration, annotated for the person who
// will edit it. Parse reads back what it was given.
func Render(c Config) []byte {
	var b strings.Builder
	b.WriteString(`# Configuration of one Twinspan agent. It is read when the agent starts.
# An unknown key is an error. This file may hold a password: keep its mode 0600.

# Name of this agent, as its peers will know it.
`)
	fmt.Fprintf(&b, "name = %s\n\n[postgres]\n", quote(c.Name))
	if c.Postgres.Managed {
		b.WriteString("# The agent creates, starts, supervises and stops the server itself.\nmanaged = true\n")
		if c.Postgres.Port != 0 {
			fmt.Fprintf(&b, "# Port of the server, on this machine's loopback address and its Unix socket.\nport = %d\n", c.Postgres.Port)
		} else {
			b.WriteString("# Port of the server; without one, a free port is chosen at the first start.\n# port = 5432\n")
		}
		b.WriteString("# Where the server listens, with TLS; without, on this machine's loopback address alone.\n")
		if c.Postgres.Listen != "" {
			fmt.Fprintf(&b, "listen = %s\n", quote(c.Postgres.Listen))
		} else {
			b.WriteString("# listen = \"*\"\n")
		}
		b.WriteString("# Networks from which its clients come, with TLS and a password. They are written when the\n# server is made; later, edit instance/data/pg_hba.conf.\n")
		if len(c.Postgres.Allow) > 0 {
			fmt.Fprintf(&b, "allow = %s\n", quoteList(c.Postgres.Allow))
		} else {
			b.WriteString("# allow = [\"10.0.0.0/8\"]\n")
		}
		b.WriteString("# Whether the agent makes backups of the server, with pgBackRest. To change it restarts the server.\n")
		if c.Postgres.NoBackups {
			b.WriteString("backups = false\n")
		} else {
			b.WriteString("# backups = true\n")
		}
		b.WriteString("# A key of your own for the backups: an absolute path, or a command for the shell that prints it,\n# as one that asks a key service. Without either the agent makes one, once.\n")
		switch p := c.Postgres; {
		case p.BackupKeyFile != "":
			fmt.Fprintf(&b, "backup_key_file = %s\n", quote(p.BackupKeyFile))
		case p.BackupKeyCommand != "":
			fmt.Fprintf(&b, "backup_key_command = %s\n", quote(p.BackupKeyCommand))
		default:
			b.WriteString("# backup_key_file = \"/etc/twinspan/backup.key\"\n# backup_key_command = \"vault kv get -field=key secret/backups\"\n")
		}
	} else {
		b.WriteString(`# How the agent reaches its server: a URL or key=value, as libpq takes it. Several
# hosts are one HA cluster. The role must be a superuser. Leave the password out
# where a .pgpass file or peer authentication serves.
`)
		fmt.Fprintf(&b, "dsn = %s\n", quote(c.Postgres.DSN))
	}
	b.WriteString(`
[endpoint]
# Where other agents reach this one: what it listens on, and what it tells them.
`)
	fmt.Fprintf(&b, "listen = %s\nadvertise = %s\n", quote(c.Endpoint.Listen), quote(c.Endpoint.Advertise))
	b.WriteString(`
[api]
# The REST interface always listens on the Unix socket run/twinspan.sock in this
# directory. Over TCP it needs TLS and a token; init --api makes both.
`)
	if c.API.Listen != "" {
		fmt.Fprintf(&b, "listen = %s\n", quote(c.API.Listen))
	} else {
		b.WriteString("# listen = \"127.0.0.1:5023\"\n")
	}
	if c.API.Certificate != "" {
		fmt.Fprintf(&b, "certificate = %s\nkey = %s\n", quote(c.API.Certificate), quote(c.API.Key))
	} else {
		b.WriteString("# A certificate of your own, PEM, in place of the one that init made.\n# certificate = \"/etc/ssl/twinspan.crt\"\n# key = \"/etc/ssl/twinspan.key\"\n")
	}
	b.WriteString("\n[limits]\n# Chunks that a seeding copies at once, where other seedings leave room; 0 is one for each processor, two to eight.\n")
	fmt.Fprintf(&b, "seed_workers = %d\n", c.Limits.SeedWorkers)
	b.WriteString(`# Disk in this directory for large transactions of primaries that are not finished, in
# MiB. Those that do not fit come at their commit.
`)
	if c.Limits.SpillMB != 0 {
		fmt.Fprintf(&b, "spill_mb = %d\n", c.Limits.SpillMB)
	} else {
		b.WriteString("# spill_mb = 16384\n")
	}
	renderHooks(&b, c.Hooks)
	return []byte(b.String())
}

// quote writes a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// WriteNew writes bytes to a new file, mode 0600, so that it is there whole or
// not at all, also when the machine stops in between. An existing file is a
// conflict and stays as it is.
func WriteNew(path string, text []byte) error {
	err := durable.Create(path, text, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return problem.New(problem.Conflict, "already_initialised", "%s exists", path)
	}
	if err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "write %s", filepath.Base(path))
	}
	return nil
}
