package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// An event trigger that runs a function of an ordinary role is refused with the link, and is a problem of it when it comes, or is
// given to the role, later: until it is gone or was agreed to.
func TestEventTriggersOfRolesAreAgreedTo(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	sales := p.A.Server.DSN("sales")
	pgtest.Exec(t, sales, `CREATE ROLE eve`, `CREATE SCHEMA eve AUTHORIZATION eve`, `CREATE SEQUENCE public.ran`, `GRANT ALL ON public.ran TO PUBLIC`,
		`CREATE FUNCTION eve.early() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF current_setting('application_name') ~ '^twinspan/' THEN PERFORM nextval('public.ran'); END IF; END $$`, `ALTER FUNCTION eve.early() OWNER TO eve`,
		`CREATE EVENT TRIGGER early ON ddl_command_end EXECUTE FUNCTION eve.early()`, `ALTER EVENT TRIGGER early ENABLE ALWAYS`)
	request := api.CreateLink{Name: "sales", Database: "sales", Peer: "b"}
	_, err := p.A.Client.CreateLink(t.Context(), request)
	refusedWith(t, "an event trigger of eve's", err, "event_trigger_of_role")
	if ran := pgtest.Query(t, sales, `SELECT is_called FROM public.ran`)[0][0]; ran != "f" && ran != "false" {
		t.Error("the function ran as the agent before anybody had accepted it")
	}
	request.Accept = []string{"event_trigger_of_role"}
	if _, err := p.A.Client.CreateLink(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "sales", api.Replicating)
	told := func(want string) {
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := p.A.Client.Link(t.Context(), "sales")
			i := slices.IndexFunc(l.Problems, func(q api.Problem) bool { return q.Code == "event_trigger_of_role" })
			if err != nil || (i >= 0) != (want != "") || i >= 0 && !strings.Contains(l.Problems[i].Title, want) {
				return fmt.Errorf("problems %+v, want %q, %v", l.Problems, want, err)
			}
			return nil
		})
	}
	pgtest.Exec(t, sales, `CREATE FUNCTION public.late() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'`, `CREATE EVENT TRIGGER late ON sql_drop EXECUTE FUNCTION public.late()`)
	pgtest.Exec(t, sales, `ALTER FUNCTION public.late() OWNER TO eve`)
	told(`("eve"), with the rights of whoever changes the schema, superusers and agents among them: "late"`)
	if _, err := p.B.Client.SetLink(t.Context(), "sales", api.SetLink{Accept: []string{"event_trigger_of_role"}}); err == nil || !strings.Contains(err.Error(), "primary's operator") {
		t.Errorf("accepted at the secondary's agent: %v", err)
	}
	if _, err := p.A.Client.SetLink(t.Context(), "sales", api.SetLink{Accept: []string{"event_trigger_of_role"}}); err != nil {
		t.Fatal(err)
	}
	told("")
	pgtest.Exec(t, sales, `CREATE EVENT TRIGGER last ON ddl_command_start EXECUTE FUNCTION eve.early()`)
	told(`: "last"`)
	pgtest.Exec(t, sales, `ALTER FUNCTION eve.early() OWNER TO CURRENT_USER`)
	told("")
}
