-- Telemetry as a service: a schema per tenant, samples in partitions of partitions,
-- queues in tables.
CREATE EXTENSION hstore;
CREATE EXTENSION btree_gin;
CREATE SCHEMA platform AUTHORIZATION telemetry_admin;
CREATE SCHEMA metrics AUTHORIZATION telemetry_admin;
CREATE SCHEMA queue AUTHORIZATION telemetry_admin;
CREATE SCHEMA billing AUTHORIZATION telemetry_admin;
GRANT USAGE ON SCHEMA platform, metrics, queue, billing TO telemetry_ingest, telemetry_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE telemetry_admin GRANT SELECT ON TABLES TO telemetry_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE telemetry_admin IN SCHEMA metrics, queue GRANT INSERT, SELECT, UPDATE, DELETE ON TABLES TO telemetry_ingest;
ALTER DEFAULT PRIVILEGES FOR ROLE telemetry_admin GRANT USAGE, SELECT ON SEQUENCES TO telemetry_ingest;

-- One sequence gives ids to several tables.
CREATE SEQUENCE platform.global_id AS bigint START 1000 CACHE 5;
CREATE SEQUENCE platform.countdown INCREMENT -1 MINVALUE -1000000 MAXVALUE 0 START 0;

CREATE TYPE platform.plan_level AS ENUM ('free', 'team', 'enterprise');
CREATE TYPE metrics.kind AS ENUM ('gauge', 'counter', 'histogram');
CREATE TYPE metrics.bucket AS (upper float8, count bigint);
CREATE DOMAIN platform.slug AS text CHECK (VALUE ~ '^[a-zA-Z0-9 _üÜ-]{1,63}$');
CREATE TYPE metrics.float_range AS RANGE (subtype = float8, subtype_diff = float8mi);

CREATE TABLE platform.plans (id int PRIMARY KEY DEFAULT nextval('platform.global_id'), level platform.plan_level NOT NULL UNIQUE, monthly numeric(10,2) NOT NULL, limits jsonb NOT NULL DEFAULT '{}');
CREATE TABLE platform.regions (code char(2) PRIMARY KEY, name text NOT NULL, "isDefault" boolean);
CREATE TABLE platform.tenants (
    id bigint PRIMARY KEY DEFAULT nextval('platform.global_id'),
    slug platform.slug NOT NULL UNIQUE,
    plan platform.plan_level NOT NULL DEFAULT 'free',
    region char(2) REFERENCES platform.regions,
    suspended timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE platform.features (name text PRIMARY KEY, default_on boolean NOT NULL DEFAULT false);
CREATE TABLE platform.tenant_features (tenant_id bigint REFERENCES platform.tenants ON DELETE CASCADE, feature text REFERENCES platform.features ON UPDATE CASCADE, is_on boolean, PRIMARY KEY (tenant_id, feature));
CREATE TABLE platform.api_clients (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant_id bigint REFERENCES platform.tenants ON DELETE CASCADE, key_hash bytea, allowed cidr[] DEFAULT '{0.0.0.0/0}');
CREATE TABLE platform.users (id bigint PRIMARY KEY DEFAULT nextval('platform.global_id'), email text NOT NULL, profile hstore);
CREATE UNIQUE INDEX users_email ON platform.users (lower(email)) INCLUDE (id);
CREATE TABLE platform.memberships (tenant_id bigint REFERENCES platform.tenants ON DELETE CASCADE, user_id bigint REFERENCES platform.users ON DELETE CASCADE, roles text[], PRIMARY KEY (tenant_id, user_id));
CREATE TABLE platform.invitations (token uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant_id bigint REFERENCES platform.tenants ON DELETE CASCADE, sent timestamptz DEFAULT now());
CREATE TABLE platform.settings ("Key" text PRIMARY KEY, "Value" json);
CREATE TABLE platform.audit (at timestamptz DEFAULT clock_timestamp(), "user" name DEFAULT session_user, what text, "from" inet);
CREATE TABLE platform.maintenance_windows (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, region char(2) REFERENCES platform.regions, during tstzrange NOT NULL, EXCLUDE USING gist (during WITH &&));

-- Samples: by tenant, then by month.
CREATE TABLE metrics.series (id bigint PRIMARY KEY DEFAULT nextval('platform.global_id'), tenant text NOT NULL, name text NOT NULL, kind metrics.kind NOT NULL DEFAULT 'gauge', labels jsonb NOT NULL DEFAULT '{}');
CREATE UNIQUE INDEX series_identity ON metrics.series (tenant, name, md5(labels::text));
CREATE INDEX series_labels ON metrics.series USING gin (tenant, labels jsonb_path_ops);
CREATE TABLE metrics.sample (
    tenant text NOT NULL,
    series_id bigint NOT NULL,
    at timestamptz NOT NULL,
    value double precision,
    histogram metrics.bucket[],
    quality smallint DEFAULT 1
) PARTITION BY LIST (tenant);
CREATE TABLE metrics.sample_acme PARTITION OF metrics.sample FOR VALUES IN ('acme') PARTITION BY RANGE (at);
CREATE TABLE metrics.sample_acme_2024_01 PARTITION OF metrics.sample_acme FOR VALUES FROM ('2024-01-01+00') TO ('2024-02-01+00');
CREATE TABLE metrics.sample_acme_2024_02 PARTITION OF metrics.sample_acme FOR VALUES FROM ('2024-02-01+00') TO ('2024-03-01+00');
CREATE TABLE metrics.sample_acme_rest PARTITION OF metrics.sample_acme DEFAULT;
CREATE TABLE metrics.sample_globex PARTITION OF metrics.sample FOR VALUES IN ('globex') PARTITION BY RANGE (at);
CREATE TABLE metrics.sample_globex_2024_01 PARTITION OF metrics.sample_globex FOR VALUES FROM ('2024-01-01+00') TO ('2024-02-01+00');
CREATE TABLE metrics.sample_globex_2024_02 PARTITION OF metrics.sample_globex FOR VALUES FROM ('2024-02-01+00') TO ('2024-03-01+00') WITH (fillfactor = 50);
CREATE TABLE metrics.sample_others PARTITION OF metrics.sample DEFAULT;
CREATE INDEX sample_at ON metrics.sample USING brin (at) WITH (pages_per_range = 16);
CREATE INDEX sample_series ON metrics.sample (series_id, at DESC NULLS LAST) INCLUDE (value);
CREATE TABLE metrics.sample_hourly (series_id bigint, hour timestamptz, min float8, max float8, sum numeric, n int NOT NULL DEFAULT 0, PRIMARY KEY (series_id, hour)) PARTITION BY RANGE (hour);
CREATE TABLE metrics.sample_hourly_2024 PARTITION OF metrics.sample_hourly FOR VALUES FROM ('2024-01-01+00') TO ('2025-01-01+00');
CREATE TABLE metrics.event (id bigint NOT NULL DEFAULT nextval('platform.global_id'), tenant text NOT NULL, body jsonb, at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id)) PARTITION BY HASH (id);
CREATE TABLE metrics.event_0 PARTITION OF metrics.event FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE metrics.event_1 PARTITION OF metrics.event FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE metrics.event_2 PARTITION OF metrics.event FOR VALUES WITH (MODULUS 3, REMAINDER 2);
CREATE TABLE metrics.retention (tenant text, kind metrics.kind, keep interval NOT NULL DEFAULT '30 days', PRIMARY KEY (tenant, kind));
CREATE TABLE metrics.threshold (series_id bigint REFERENCES metrics.series ON DELETE CASCADE, allowed metrics.float_range, EXCLUDE USING gist (allowed WITH &&) WHERE (series_id = 0));
CREATE UNLOGGED TABLE metrics.last_value (series_id bigint PRIMARY KEY, at timestamptz, value float8);
CREATE TABLE metrics.ingest_error (at timestamptz DEFAULT now(), line text, reason text);
CREATE TABLE metrics.rollup_state (name text PRIMARY KEY, done_until timestamptz);

-- Queues.
CREATE TABLE queue.job (id bigint PRIMARY KEY DEFAULT nextval('platform.global_id'), queue text NOT NULL DEFAULT 'default', payload jsonb, run_at timestamptz NOT NULL DEFAULT now(), attempts int NOT NULL DEFAULT 0, locked_by text, locked_at timestamptz) WITH (autovacuum_vacuum_scale_factor = 0.01);
CREATE INDEX job_ready ON queue.job (queue, run_at) WHERE locked_by IS NULL;
CREATE TABLE queue.job_dead (LIKE queue.job INCLUDING DEFAULTS, died_at timestamptz DEFAULT now());
CREATE TABLE queue.job_log (job_id bigint, at timestamptz DEFAULT clock_timestamp(), message text);
CREATE TABLE queue.outbox (position bigserial PRIMARY KEY, topic text NOT NULL, message bytea NOT NULL);
ALTER TABLE queue.outbox ALTER COLUMN message SET STORAGE EXTERNAL;
CREATE TABLE queue.inbox (message_id uuid PRIMARY KEY, received timestamptz DEFAULT now());
CREATE TABLE queue.lease (name text PRIMARY KEY, holder text, until timestamptz);
CREATE TABLE queue.schedule (name text PRIMARY KEY, cron text NOT NULL, next_run timestamptz);

-- Billing.
CREATE TABLE billing.account (tenant_id bigint PRIMARY KEY REFERENCES platform.tenants, balance numeric(20,6) NOT NULL DEFAULT 0, vat_id text, address jsonb);
CREATE TABLE billing.usage (tenant_id bigint NOT NULL, day date NOT NULL, samples bigint NOT NULL DEFAULT 0, bytes numeric NOT NULL DEFAULT 0, PRIMARY KEY (tenant_id, day)) PARTITION BY RANGE (day);
CREATE TABLE billing.usage_q1 PARTITION OF billing.usage FOR VALUES FROM ('2024-01-01') TO ('2024-04-01');
CREATE TABLE billing.usage_q2 PARTITION OF billing.usage FOR VALUES FROM ('2024-04-01') TO ('2024-07-01');
CREATE TABLE billing.rate (level platform.plan_level, unit text, price numeric(12,8), PRIMARY KEY (level, unit));
CREATE TABLE billing.invoice (id bigint GENERATED BY DEFAULT AS IDENTITY (START 500 INCREMENT 5) PRIMARY KEY, tenant_id bigint REFERENCES platform.tenants, month date, total numeric(14,2));
CREATE TABLE billing.invoice_item (invoice_id bigint REFERENCES billing.invoice ON DELETE CASCADE, no int, what text, amount numeric(14,4), PRIMARY KEY (invoice_id, no));
CREATE TABLE billing.credit (tenant_id bigint, amount numeric, reason text);

-- Functions of every kind.
CREATE FUNCTION platform.tenant_schema(slug text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 'tenant_' || slug;
CREATE FUNCTION metrics.merge(a metrics.bucket[], b metrics.bucket[]) RETURNS metrics.bucket[] LANGUAGE sql IMMUTABLE BEGIN ATOMIC
    SELECT array_agg(ROW(u, c)::metrics.bucket ORDER BY u) FROM (SELECT (x).upper AS u, sum((x).count)::bigint AS c FROM unnest(a || b) x GROUP BY 1) y;
END;
CREATE AGGREGATE metrics.merge_all (metrics.bucket[]) (SFUNC = metrics.merge, STYPE = metrics.bucket[], INITCOND = '{}', PARALLEL = SAFE);
CREATE OPERATOR metrics.+ (LEFTARG = metrics.bucket[], RIGHTARG = metrics.bucket[], FUNCTION = metrics.merge, COMMUTATOR = OPERATOR(metrics.+));
CREATE FUNCTION metrics.kind_of(text) RETURNS metrics.kind LANGUAGE sql STABLE AS 'SELECT CASE $1 WHEN ''c'' THEN ''counter''::metrics.kind ELSE ''gauge'' END';
CREATE FUNCTION queue.take(q text, worker text) RETURNS SETOF queue.job LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY UPDATE queue.job SET locked_by = worker, locked_at = clock_timestamp(), attempts = attempts + 1
     WHERE id = (SELECT j.id FROM queue.job j WHERE j.queue = q AND j.locked_by IS NULL ORDER BY run_at, id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING *;
END
$$;
CREATE PROCEDURE metrics.roll_up(since timestamptz) LANGUAGE sql AS $$
    INSERT INTO metrics.sample_hourly AS h SELECT series_id, date_trunc('hour', at), min(value), max(value), sum(value)::numeric, count(*) FROM metrics.sample WHERE at >= since GROUP BY 1, 2
    ON CONFLICT (series_id, hour) DO UPDATE SET min = EXCLUDED.min, max = EXCLUDED.max, sum = EXCLUDED.sum, n = EXCLUDED.n;
$$;
CREATE FUNCTION billing.count_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO billing.usage AS u SELECT t.id, '2024-02-01', count(*), 8 * count(*) FROM added a JOIN platform.tenants t ON t.slug = a.tenant GROUP BY 1
        ON CONFLICT (tenant_id, day) DO UPDATE SET samples = u.samples + EXCLUDED.samples, bytes = u.bytes + EXCLUDED.bytes;
    RETURN NULL;
END
$$;
CREATE TRIGGER count_usage AFTER INSERT ON metrics.event REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION billing.count_usage();

-- A tenant is a schema made from a model.
CREATE PROCEDURE platform.create_tenant(slug text, level platform.plan_level DEFAULT 'free') LANGUAGE plpgsql AS $$
DECLARE
    s text := platform.tenant_schema(slug);
BEGIN
    INSERT INTO platform.tenants (slug, plan) VALUES (create_tenant.slug, level);
    EXECUTE format('CREATE SCHEMA %I', s);
    EXECUTE format('CREATE TABLE %I.devices (id bigint PRIMARY KEY DEFAULT nextval(''platform.global_id''), name text NOT NULL, "serialNumber" text UNIQUE, position point, tags text[])', s);
    EXECUTE format('CREATE TABLE %I.sensors (id bigserial PRIMARY KEY, device_id bigint NOT NULL REFERENCES %1$I.devices ON DELETE CASCADE, unit text, calibration numeric[])', s);
    EXECUTE format('CREATE TABLE %I.dashboards (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text, layout jsonb DEFAULT ''[]'')', s);
    EXECUTE format('CREATE TABLE %I.widgets (dashboard_id int REFERENCES %1$I.dashboards ON DELETE CASCADE, no int, config jsonb, PRIMARY KEY (dashboard_id, no))', s);
    EXECUTE format('CREATE TABLE %I.alert_rules (id serial PRIMARY KEY, expression text NOT NULL, threshold double precision, severity int CHECK (severity BETWEEN 1 AND 5))', s);
    EXECUTE format('CREATE TABLE %I.alerts (rule_id int REFERENCES %1$I.alert_rules, raised timestamptz DEFAULT now(), cleared timestamptz, detail text)', s);
    EXECUTE format('CREATE TABLE %I."UserPrefs" ("userId" bigint PRIMARY KEY, "Prefs" hstore)', s);
    EXECUTE format('CREATE TABLE %I.documents (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text, search tsvector GENERATED ALWAYS AS (to_tsvector(''simple'', coalesce(body, ''''))) STORED)', s);
    EXECUTE format('CREATE INDEX ON %I.documents USING gin (search)', s);
    EXECUTE format('CREATE INDEX devices_position ON %I.devices USING gist (position)', s);
    EXECUTE format('CREATE VIEW %I.noisy_devices AS SELECT d.id, d.name, count(*) AS sensors FROM %1$I.devices d JOIN %1$I.sensors s ON s.device_id = d.id GROUP BY d.id', s);
    EXECUTE format('ALTER TABLE %I.documents ENABLE ROW LEVEL SECURITY', s);
    EXECUTE format('CREATE POLICY readable ON %I.documents FOR SELECT TO "tenant-user" USING (body IS NOT NULL)', s);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO "tenant-user"', s);
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO "tenant-user"', s);
    EXECUTE format('COMMENT ON SCHEMA %I IS %L', s, 'Tenant ' || slug || '; made by platform.create_tenant');
END
$$;

INSERT INTO platform.plans (level, monthly) VALUES ('free', 0), ('team', 49), ('enterprise', 990);
INSERT INTO platform.regions VALUES ('EU', 'Europe', true), ('US', 'United States', false), ('AP', 'Asia', NULL);
CALL platform.create_tenant('acme', 'enterprise');
CALL platform.create_tenant('globex', 'team');
CALL platform.create_tenant('Über uns');
INSERT INTO platform.features SELECT 'feature ' || i, i % 2 = 0 FROM generate_series(1, 8) i;
INSERT INTO platform.tenant_features SELECT t.id, f.name, true FROM platform.tenants t, platform.features f;
INSERT INTO platform.users (email, profile) SELECT 'u' || i || '@saas.example', hstore('lang', 'de') || hstore('n', i::text) FROM generate_series(1, 60) i;
INSERT INTO platform.memberships SELECT t.id, u.id, '{viewer}' FROM platform.tenants t JOIN platform.users u ON u.id % 3 = t.id % 3;
INSERT INTO platform.settings VALUES ('Theme', '{"color" : "blue"}'), ('theme', '[1, 2]');
DO $$
DECLARE
    s text;
BEGIN
    FOR s IN SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenant\_%' ORDER BY 1 LOOP
        EXECUTE format('INSERT INTO %I.devices (name, "serialNumber", position) SELECT ''dev '' || i, ''SN'' || i, point(i, -i) FROM generate_series(1, 40) i', s);
        EXECUTE format('INSERT INTO %I.sensors (device_id, unit) SELECT id, ''C'' FROM %1$I.devices', s);
        EXECUTE format('INSERT INTO %I.dashboards (title) SELECT ''Board '' || i FROM generate_series(1, 5) i', s);
        EXECUTE format('INSERT INTO %I.widgets SELECT i %% 5 + 1, i, ''{"w": 1}'' FROM generate_series(1, 20) i', s);
        EXECUTE format('INSERT INTO %I.alert_rules (expression, threshold, severity) SELECT ''x > '' || i, i / 3.0, i %% 5 + 1 FROM generate_series(1, 10) i', s);
        EXECUTE format('INSERT INTO %I.alerts (rule_id) SELECT i %% 10 + 1 FROM generate_series(1, 20) i', s);
        EXECUTE format('INSERT INTO %I."UserPrefs" SELECT i, ''a=>1'' FROM generate_series(1, 10) i', s);
        EXECUTE format('INSERT INTO %I.documents (body) SELECT ''text number '' || i FROM generate_series(1, 10) i', s);
    END LOOP;
END
$$;
INSERT INTO metrics.series (tenant, name, labels) SELECT t, 'series ' || i, jsonb_build_object('host', 'h' || i) FROM unnest(ARRAY['acme', 'globex', 'other']) t, generate_series(1, 30) i;
INSERT INTO metrics.sample (tenant, series_id, at, value, histogram)
    SELECT (ARRAY['acme', 'globex', 'other'])[i % 3 + 1], i % 30, '2024-01-01+00'::timestamptz + i * interval '1 hour', i / 7.0, CASE WHEN i % 10 = 0 THEN ARRAY[ROW(1, i), ROW('Infinity', 2)]::metrics.bucket[] END FROM generate_series(1, 1400) i;
CALL metrics.roll_up('2024-01-01+00');
INSERT INTO metrics.event (tenant, body) SELECT 'acme', jsonb_build_object('i', i) FROM generate_series(1, 200) i;
INSERT INTO metrics.last_value SELECT i, now(), i FROM generate_series(1, 10) i;
INSERT INTO queue.job (queue, payload) SELECT (ARRAY['default', 'mail'])[i % 2 + 1], to_jsonb(i) FROM generate_series(1, 100) i;
INSERT INTO queue.outbox (topic, message) SELECT 't', decode(repeat(md5(i::text), 90), 'hex') FROM generate_series(1, 40) i;
INSERT INTO billing.account SELECT id FROM platform.tenants;
INSERT INTO billing.usage SELECT t.id, '2024-01-01'::date + d, d * 100, d FROM platform.tenants t, generate_series(0, 150) d ON CONFLICT DO NOTHING;
INSERT INTO billing.credit SELECT i % 3, i % 5, 'goodwill' FROM generate_series(1, 30) i;
INSERT INTO billing.invoice (tenant_id, month, total) SELECT t.id, '2024-01-01', 10 FROM platform.tenants t;
SELECT setval('platform.countdown', -50);
DO $$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT c.oid::regclass AS name, c.relkind FROM pg_class c WHERE c.relnamespace::regnamespace::text IN ('platform', 'metrics', 'queue', 'billing') AND c.relkind IN ('r', 'p')
            OR c.oid IN ('platform.global_id'::regclass, 'platform.countdown'::regclass) LOOP
        EXECUTE format('ALTER %s %s OWNER TO telemetry_admin', CASE t.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, t.name);
    END LOOP;
END
$$;
GRANT INSERT, SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA metrics, queue TO telemetry_ingest;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA platform, queue TO telemetry_ingest;
ANALYZE;
