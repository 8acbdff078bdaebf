package pg

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/jackc/pgpassfile"
	"github.com/jackc/pgx/v5"
)

// socketDirectories are those in which libpq looks for a server by itself: of a host that is one of
// them the file of passwords says localhost.
var socketDirectories = []string{"/var/run/postgresql", "/run/postgresql", "/tmp"}

// passwordFromFile gives the password that the user's file has for one of the hosts (manual, "The
// Password File"). pgconn would look for the first host alone, for localhost with every socket, and
// not for the database that has the user's name.
func passwordFromFile(config *pgx.ConnConfig, params map[string]string) string {
	file := cmp.Or(params["passfile"], os.Getenv("PGPASSFILE"))
	if home, err := os.UserHomeDir(); file == "" && err == nil {
		file = filepath.Join(home, ".pgpass")
	}
	entries, err := pgpassfile.ReadPassfile(file)
	if err != nil {
		return ""
	}
	find := func(host string, port uint16) string {
		if slices.Contains(socketDirectories, filepath.Clean(host)) {
			host = "localhost"
		}
		return entries.FindPassword(host, strconv.Itoa(int(port)), cmp.Or(config.Database, config.User), config.User)
	}
	password := find(config.Host, config.Port)
	for _, f := range config.Fallbacks {
		password = cmp.Or(password, find(f.Host, f.Port))
	}
	return password
}
