-- What the service's sessions do all day. Each part is sent as one string. A part may
-- say from which migration on it works, and until which one.

-- @ingest until 0019
BEGIN;
SET LOCAL ROLE telemetry_ingest;
INSERT INTO metrics.sample (tenant, series_id, at, value) SELECT (ARRAY['acme', 'globex', 'other'])[1 + (random() * 2)::int], n, '2024-01-15+00'::timestamptz + random() * interval '45 days', random() FROM generate_series(1, 20) n;
COMMIT;

-- @ingest_more from 0019
BEGIN;
INSERT INTO metrics.sample (tenant, series_id, at, value, source) SELECT (ARRAY['acme', 'globex', 'other'])[1 + (random() * 2)::int], n, '2024-01-15+00'::timestamptz + random() * interval '75 days', random(), 'load' FROM generate_series(1, 20) n;
COMMIT;

-- @correct
UPDATE metrics.sample SET value = value * 2, quality = 0 WHERE series_id = (random() * 30)::int AND at BETWEEN '2024-02-03+00' AND '2024-02-05+00';

-- @expire
DELETE FROM metrics.sample WHERE tenant = 'other' AND at < '2024-01-16+00'::timestamptz + random() * interval '20 days';

-- @across_partitions
UPDATE metrics.sample SET at = at + interval '30 days' WHERE tenant = 'globex' AND series_id = (random() * 30)::int AND at < '2024-01-10+00'::timestamptz + random() * interval '10 days';

-- @event
INSERT INTO metrics.event (tenant, body) SELECT (ARRAY['acme', 'globex'])[1 + n % 2], jsonb_build_object('n', n, 'pad', repeat('e', n * 300)) FROM generate_series(1, 6) n;

-- @event_drop
DELETE FROM metrics.event WHERE id IN (SELECT id FROM metrics.event ORDER BY random() LIMIT 4);

-- @roll_up until 0023
CALL metrics.roll_up('2024-02-20+00');

-- @work
INSERT INTO queue.job (queue, payload) VALUES ('mail', '"load"'), ('default', 'null');
SELECT queue.take('mail', 'worker');
DELETE FROM queue.job WHERE locked_by = 'worker' AND id IN (SELECT id FROM queue.job WHERE locked_by = 'worker' FOR UPDATE SKIP LOCKED);

-- @fail_job until 0031
WITH d AS (DELETE FROM queue.job WHERE id = (SELECT id FROM queue.job WHERE queue = 'default' ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING *)
INSERT INTO queue.job_dead (id, queue, payload, run_at, attempts) SELECT id, queue, payload, run_at, attempts FROM d;

-- @job_log
INSERT INTO queue.job_log (job_id, message) VALUES (1, 'same'), (1, 'same'), (2, NULL);
DELETE FROM queue.job_log WHERE ctid = (SELECT ctid FROM queue.job_log ORDER BY random() LIMIT 1);

-- @outbox
INSERT INTO queue.outbox (topic, message) SELECT 'load', decode(repeat(md5(random()::text), 100), 'hex') FROM generate_series(1, 2);
DELETE FROM queue.outbox WHERE position = (SELECT min(position) FROM queue.outbox);

-- @outbox_topic
UPDATE queue.outbox SET topic = topic || '!' WHERE position = (SELECT max(position) FROM queue.outbox) AND length(topic) < 30;

-- @lease
INSERT INTO queue.lease VALUES ('leader', 'me', clock_timestamp()) ON CONFLICT (name) DO UPDATE SET until = clock_timestamp();

-- @acme_devices
INSERT INTO tenant_acme.devices (name, "serialNumber") VALUES ('load', md5(random()::text));
UPDATE tenant_acme.devices SET tags = array_append(tags, 'seen') WHERE name LIKE 'dev %' AND coalesce(cardinality(tags), 0) < 10 AND random() < 0.1;
DELETE FROM tenant_acme.devices WHERE id = (SELECT min(id) FROM tenant_acme.devices WHERE name = 'load');

-- @ueber_uns until 0035
UPDATE "tenant_Über uns"."UserPrefs" SET "Prefs" = "Prefs" || hstore('load', random()::text) WHERE "userId" = 1 + (random() * 9)::int;
INSERT INTO "tenant_Über uns".alerts (rule_id, detail) VALUES (1, 'é');

-- @documents
INSERT INTO tenant_globex.documents (body) VALUES (repeat('load ', 100));
UPDATE tenant_globex.documents SET body = body || ' more' WHERE id = (SELECT id FROM tenant_globex.documents ORDER BY random() LIMIT 1) AND length(body) < 2000;
DELETE FROM tenant_globex.documents WHERE id = (SELECT id FROM tenant_globex.documents WHERE body LIKE 'load%' ORDER BY random() LIMIT 1);

-- @credit
UPDATE billing.credit SET amount = amount + 0.1 WHERE tenant_id = (random() * 2)::int;

-- @usage until 0027
UPDATE billing.usage SET samples = samples + 1 WHERE day = '2024-01-01'::date + (random() * 100)::int;

-- @last_value until 0025
INSERT INTO metrics.last_value VALUES ((random() * 40)::int, now(), random()) ON CONFLICT (series_id) DO UPDATE SET value = EXCLUDED.value, at = now();

-- @countdown
SELECT nextval('platform.countdown'), nextval('platform.global_id');

-- @users
UPDATE platform.users SET profile = profile || hstore('visit', now()::text) WHERE email = 'u' || (1 + (random() * 59)::int) || '@saas.example';

-- @initech from 0010
INSERT INTO tenant_initech.devices (name) SELECT 'init ' || n FROM generate_series(1, 3) n;
UPDATE tenant_initech.devices SET name = name || '+' WHERE id = (SELECT id FROM tenant_initech.devices ORDER BY random() LIMIT 1) AND length(name) < 30;
