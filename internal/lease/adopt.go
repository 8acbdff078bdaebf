package lease

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// Stray is a link that an agent without its directory may take over.
type Stray struct {
	catalog.Stray
	Database string
}

// Unread is a database that could not be searched, with why.
type Unread struct {
	Database string
	Why      error
}

// Strays looks into every database of a server for links that whichever agent has worked.
func Strays(ctx context.Context, server *pg.DSN) (found []Stray, unread []Unread, err error) {
	_, databases, err := server.Describe(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range databases {
		list, err := straysIn(ctx, server.WithDatabase(d.Name))
		switch {
		case pg.IsUnknownDatabase(err):
		case err != nil:
			unread = append(unread, Unread{d.Name, err})
		}
		for _, s := range list {
			found = append(found, Stray{s, d.Name})
		}
	}
	return found, unread, ctx.Err()
}

func straysIn(ctx context.Context, dsn *pg.DSN) (list []catalog.Stray, err error) {
	err = lookInto(ctx, dsn, func(ctx context.Context, conn *pgx.Conn) error {
		list, err = catalog.Strays(ctx, conn, Patience.Seconds())
		return err
	})
	return list, err
}

// Served says whether somebody works an agent's link: by the lease, and where a release
// without one may be at work, by sessions of the link.
func (s Stray) Served() bool {
	if s.Holder == nil {
		return s.Sessions > 0
	}
	return s.Holder.There && s.Holder.Fresh
}

// Adopt makes the links of an agent in one database those of whoever has the key. It refuses
// while a process that lives works them; the sessions of one that does not are ended. The lease
// is nobody's afterwards.
func (l *Lease) Adopt(ctx context.Context, database string, links []*catalog.Link, key catalog.Key) error {
	other, err := l.Take(ctx, database)
	if err != nil {
		return err
	}
	if other != nil {
		return Alive(other.Place)
	}
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	conn, err := open(ctx, l.Server.WithDatabase(database))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return catalog.Adopt(ctx, conn, links, key)
}

// Alive is the problem of links that cannot be taken over, for somebody works them.
func Alive(where string) *problem.Error {
	if where == "" {
		where = "sessions of theirs are there"
	}
	return problem.New(problem.Conflict, "adopt_alive", "an agent works the links: %s", where).
		WithHint("stop that agent first; if its process is gone, its sessions end within seconds: see pg_stat_activity for application_name like 'twinspan/%%'")
}
