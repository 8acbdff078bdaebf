package schema

import "testing"

// What pg_dump of version 18 says of NOT NULL is said as older servers read it.
func TestNotNullIsPlain(t *testing.T) {
	for _, c := range [][2]string{
		{"CREATE TABLE public.h (\n    NOT NULL id,\n    c bytea[]\n)\nINHERITS (public.t1);\n\nALTER TABLE public.h OWNER TO shop;\n",
			"CREATE TABLE public.h (\n    c bytea[]\n)\nINHERITS (public.t1);\nALTER TABLE ONLY public.h ALTER COLUMN id SET NOT NULL;\n\nALTER TABLE public.h OWNER TO shop;"},
		{`CREATE UNLOGGED TABLE "S (".t (CONSTRAINT "a, b" NOT NULL "x (", d numeric(9,2) DEFAULT ';' CONSTRAINT k NOT NULL NO INHERIT, CHECK (d IS NOT NULL)) INHERITS (u) WITH (fillfactor='7');`,
			`CREATE UNLOGGED TABLE "S (".t (` + "\n    d numeric(9,2) DEFAULT ';' CONSTRAINT k NOT NULL,\n    CHECK (d IS NOT NULL)\n" + `) INHERITS (u) WITH (fillfactor='7');` + "\n" + `ALTER TABLE ONLY "S (".t ALTER COLUMN "x (" SET NOT NULL;`},
		{"CREATE TABLE t (NOT NULL a) INHERITS (u);", "CREATE TABLE t (\n    \n) INHERITS (u);\nALTER TABLE ONLY t ALTER COLUMN a SET NOT NULL;"},
		{`CREATE TABLE t (a int NOT NULL, "not" int, CONSTRAINT c CHECK (NOT NULL IS NULL));`, `CREATE TABLE t (a int NOT NULL, "not" int, CONSTRAINT c CHECK (NOT NULL IS NULL));`},
	} {
		if got := trim(string(plainNotNull(Entry{Kind: "TABLE", SQL: Text(c[0])}))); got != c[1] {
			t.Errorf("%q becomes\n%q, not\n%q", c[0], got, c[1])
		}
	}
}
