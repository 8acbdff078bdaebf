-- as: transaction
ALTER TABLE metrics.ingest_error RENAME TO "Ingest Error";
ALTER TABLE metrics."Ingest Error" RENAME COLUMN line TO "Line";
ALTER TABLE platform.settings RENAME COLUMN "Key" TO key;
ALTER TABLE platform.settings RENAME CONSTRAINT settings_pkey TO "Settings PK";
ALTER TYPE metrics.bucket RENAME ATTRIBUTE upper TO bound;
ALTER TYPE platform.plan_level RENAME VALUE 'free' TO 'Free; "trial"';
ALTER DOMAIN platform.slug RENAME TO tenant_slug;
ALTER FUNCTION metrics.add_month(text, date) RENAME TO add_partition;
CREATE OR REPLACE FUNCTION metrics.merge(a metrics.bucket[], b metrics.bucket[]) RETURNS metrics.bucket[] LANGUAGE sql IMMUTABLE STRICT AS
    'SELECT array_agg(ROW(u, c)::metrics.bucket ORDER BY u) FROM (SELECT (x).bound AS u, sum((x).count)::bigint AS c FROM unnest(a || b) x GROUP BY 1) y';
