package schema_test

// rich is a database with one of everything that has a rule of its own here.
const rich = `
CREATE ROLE rich_owner LOGIN;
CREATE ROLE "Rich Grantee";
CREATE ROLE rich_policy;
CREATE ROLE rich_default;
CREATE ROLE rich_elsewhere;
CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE EXTENSION btree_gist;
CREATE SCHEMA app AUTHORIZATION rich_owner;
CREATE SCHEMA "My ""Schema""";
CREATE TYPE app.mood AS ENUM ('sad', 'ok', 'it''s -- fine');
CREATE TYPE app.pair AS (a int, b text);
CREATE DOMAIN app.positive AS int CHECK (VALUE > 0);
CREATE TYPE app.span AS RANGE (subtype = float8);
CREATE COLLATION app.german (provider = icu, locale = 'de');
CREATE SEQUENCE app.plain START 7;
CREATE SEQUENCE app.down INCREMENT -3 MINVALUE -1000 MAXVALUE 10 START 10;
CREATE TABLE app.types (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m app.mood DEFAULT 'ok', ms app.mood[], p app.pair, d app.positive,
    s app.span, h hstore, c citext UNIQUE, twice int GENERATED ALWAYS AS (id::int * 2) STORED,
    during tstzrange, room int, CHECK (room <> 3), EXCLUDE USING gist (room WITH =, during WITH &&));
ALTER TABLE app.types OWNER TO rich_owner;
COMMENT ON TABLE app.types IS E'it''s\n--\n-- TOC entry 1 (class 1259 OID 1)\n-- Name: x; Type: TABLE; Schema: -; Owner: x\n--\n';
COMMENT ON COLUMN app.types.m IS 'a column';
COMMENT ON CONSTRAINT types_pkey ON app.types IS 'the key';
CREATE TABLE "My ""Schema"""."T; Type: INDEX" ("Id ""x""" int NOT NULL, "sel;ect" text NOT NULL, v serial);
CREATE UNIQUE INDEX "Weird; Index" ON "My ""Schema"""."T; Type: INDEX" ("sel;ect", "Id ""x""");
ALTER TABLE "My ""Schema"""."T; Type: INDEX" REPLICA IDENTITY USING INDEX "Weird; Index";
COMMENT ON INDEX "My ""Schema"""."Weird; Index" IS '$$; $_$ /* ';
CREATE TABLE app.nokey (a int, b text);
ALTER TABLE app.nokey REPLICA IDENTITY FULL;
CREATE INDEX nokey_expression ON app.nokey (lower(b)) WHERE a > 0;
CREATE TABLE app.measure (at date NOT NULL, n int NOT NULL, v numeric, PRIMARY KEY (at, n)) PARTITION BY RANGE (at);
CREATE TABLE app.measure_1 PARTITION OF app.measure FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE app.measure_2 PARTITION OF app.measure FOR VALUES FROM ('2021-01-01') TO ('2022-01-01') PARTITION BY LIST (n);
CREATE TABLE app.measure_2a PARTITION OF app.measure_2 FOR VALUES IN (1, 2);
CREATE TABLE app.measure_rest PARTITION OF app.measure_2 DEFAULT;
CREATE INDEX ON app.measure (v);
CREATE TABLE app.person (id int PRIMARY KEY, boss int REFERENCES app.person, dept int, hired date, n int);
CREATE TABLE app.dept (id int PRIMARY KEY, head int REFERENCES app.person DEFERRABLE INITIALLY DEFERRED, name text);
ALTER TABLE app.person ADD FOREIGN KEY (dept) REFERENCES app.dept;
ALTER TABLE app.person ADD FOREIGN KEY (hired, n) REFERENCES app.measure;
ALTER TABLE app.person ADD CONSTRAINT later CHECK (id > 0) NOT VALID;
CREATE TABLE app.base (id int, t text);
CREATE TABLE app.derived (more int UNIQUE) INHERITS (app.base);
CREATE STATISTICS app.stat ON a, b FROM app.nokey;
CREATE VIEW app.plainview AS SELECT id, m FROM app.types;
CREATE VIEW app.grouped AS SELECT types.*, count(*) OVER () AS n FROM app.types GROUP BY id;
CREATE MATERIALIZED VIEW app.zz_first AS SELECT id, name FROM app.dept;
CREATE VIEW app.between AS SELECT id FROM app.zz_first;
CREATE MATERIALIZED VIEW app.aa_second AS SELECT count(*) AS n FROM app.between;
CREATE MATERIALIZED VIEW app.bykey AS SELECT id, name FROM app.dept GROUP BY id;
CREATE UNIQUE INDEX ON app.bykey (id);
CREATE MATERIALIZED VIEW app.empty AS SELECT 1 AS one WITH NO DATA;
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
--
-- TOC entry 3395 (class 2606 OID 16402)
-- Name: t t_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--
  RETURN new;
END $$;
CREATE FUNCTION app.atomic(i int) RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM app.dept WHERE id > i; SELECT 2; END;
CREATE PROCEDURE app.proc() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE app.total (int) (sfunc = int4pl, stype = int, initcond = '0');
CREATE TRIGGER touch BEFORE UPDATE ON app.dept FOR EACH ROW WHEN (old.* IS DISTINCT FROM new.*) EXECUTE FUNCTION app.touch();
CREATE TRIGGER touch_parts AFTER INSERT ON app.measure FOR EACH ROW EXECUTE FUNCTION app.touch();
ALTER TABLE app.dept ENABLE ALWAYS TRIGGER touch;
COMMENT ON TRIGGER touch ON app.dept IS 'touched';
CREATE RULE quiet AS ON DELETE TO app.nokey WHERE old.a = 0 DO INSTEAD NOTHING;
ALTER TABLE app.dept ENABLE ROW LEVEL SECURITY;
CREATE POLICY see ON app.dept FOR SELECT TO rich_policy USING (name <> 'secret');
CREATE FUNCTION app.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN NULL; END';
CREATE EVENT TRIGGER application_ddl ON ddl_command_end EXECUTE FUNCTION app.on_ddl();
GRANT SELECT (id, name), UPDATE ON app.dept TO "Rich Grantee" WITH GRANT OPTION;
GRANT USAGE ON SCHEMA app TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO rich_default;
ALTER TABLE app.dept CLUSTER ON dept_pkey;
INSERT INTO app.dept VALUES (1, NULL, 'one'), (2, NULL, 'two');
REFRESH MATERIALIZED VIEW app.zz_first;
REFRESH MATERIALIZED VIEW app.aa_second;
REFRESH MATERIALIZED VIEW app.bykey;
SELECT setval('app.plain', 41), setval('app.down', -5, false), nextval('app.types_id_seq');
CREATE SCHEMA twinspan;
CREATE TABLE twinspan.link (id int);
ALTER TABLE twinspan.link OWNER TO rich_elsewhere;
CREATE FUNCTION twinspan.own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE FUNCTION twinspan.own_event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN NULL; END';
CREATE TRIGGER twinspan_truncate AFTER TRUNCATE ON app.dept EXECUTE FUNCTION twinspan.own();
COMMENT ON TRIGGER twinspan_truncate ON app.dept IS 'the link''s';
CREATE EVENT TRIGGER twinspan_drop ON sql_drop EXECUTE FUNCTION twinspan.own_event();
CREATE PUBLICATION twinspan_x FOR ALL TABLES;
`
