package assess

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pg"
)

// sessionsProbed is how many sessions in a row are asked who they reach.
const sessionsProbed = 3

// who is the server that a session has reached.
type who struct {
	system  string
	started string
}

// judgeAddress opens sessions in a row and compares the servers that they reach,
// and asks whether a session stays with one process of the server.
func judgeAddress(ctx context.Context, dsn *pg.DSN) (findings, error) {
	var f findings
	var first who
	for i := range sessionsProbed {
		w, pids, err := probe(ctx, dsn)
		if err != nil {
			return nil, err
		}
		if pids[0] != pids[1] {
			f.blocksIf(true, "address_pooled", dsn.Address(), "statements of one session reach different processes of the server: a pooler is between, which loses the settings of sessions",
				"give the agent an address that leads to the server itself: edit postgres.dsn in twinspan.toml")
			return f, nil
		}
		if i == 0 {
			first = w
			continue
		}
		if w != first {
			f.blocksIf(true, "address_load_balanced", dsn.Address(), "sessions in a row reach different servers (system identifiers "+first.system+" and "+w.system+
				"): changes would be read from one and rows from another", "give the agent the address of one server, or list all hosts of the cluster in its connection string")
			return f, nil
		}
	}
	return f, nil
}

func probe(ctx context.Context, dsn *pg.DSN) (w who, pids [2]int, err error) {
	conn, err := dsn.Connect(ctx, pg.Session{Name: "check"})
	if err != nil {
		return w, pids, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, `SELECT (SELECT system_identifier::text FROM pg_control_system()), pg_postmaster_start_time()::text, pg_backend_pid()`).
		Scan(&w.system, &w.started, &pids[0])
	if err == nil {
		err = conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pids[1])
	}
	return w, pids, pg.Classify(err, "ask the server who it is")
}

// Unknown says that a number of bytes could not be told.
const Unknown = -1

// freeSpace tells how much is free where the server keeps its data, and its log,
// when the server runs on this machine; Unknown otherwise. Only the system can tell
// it: SQL does not.
func freeSpace(ctx context.Context, conn *pgx.Conn, dsn *pg.DSN) (data, log int64, err error) {
	dir, err := dataDirectory(ctx, conn)
	if err != nil {
		return Unknown, Unknown, err
	}
	if dir == "" || !onThisMachine(dsn, dir) {
		return Unknown, Unknown, nil
	}
	data = freeAt(dir)
	log = freeAt(filepath.Join(dir, "pg_wal"))
	if log == Unknown { // the directory is closed to this user; a log elsewhere is rare
		log = data
	}
	return data, log, nil
}

func freeAt(dir string) int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return Unknown
	}
	return int64(s.Bavail) * int64(s.Bsize)
}

// onThisMachine says whether the server's data directory is one of this machine:
// it is reached by a Unix socket or the loopback address, and the directory there
// names the same port, where this user may read it. Behind the loopback address
// there can be a tunnel or a container.
func onThisMachine(dsn *pg.DSN, dir string) bool {
	host, port, err := net.SplitHostPort(dsn.Address())
	ip := net.ParseIP(host)
	if err != nil || !(filepath.IsAbs(host) || host == "localhost" || ip != nil && ip.IsLoopback()) {
		return false
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return false
	}
	text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if os.IsPermission(err) {
		return true
	}
	// The fourth line is the port (src/include/utils/pidfile.h).
	lines := strings.Split(string(text), "\n")
	if err != nil || len(lines) < 4 {
		return false
	}
	_, err = strconv.Atoi(lines[3])
	return err == nil && strings.TrimSpace(lines[3]) == port
}

// EncryptionOf says how the data directory of a server is encrypted. It is not known of one that is not on this machine.
func EncryptionOf(ctx context.Context, server *pg.DSN) (e instance.Encryption, known bool, err error) {
	conn, err := server.Connect(ctx, pg.Session{Name: "encryption"})
	if err != nil {
		return e, false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return encryptionOf(ctx, conn, server)
}

func encryptionOf(ctx context.Context, conn *pgx.Conn, server *pg.DSN) (e instance.Encryption, known bool, err error) {
	dir, err := dataDirectory(ctx, conn)
	if err != nil || dir == "" || !onThisMachine(server, dir) {
		return e, false, err
	}
	return instance.EncryptionAt(dir), true, nil
}

// dataDirectory asks a server for its data directory; "" where the role may not know.
func dataDirectory(ctx context.Context, conn *pgx.Conn) (dir string, err error) {
	err = conn.QueryRow(ctx, `SELECT coalesce(current_setting('data_directory', true), '')`).Scan(&dir)
	if pg.SQLState(err) == "42501" {
		return "", nil
	}
	return dir, pg.Classify(err, "ask the server for its data directory")
}
