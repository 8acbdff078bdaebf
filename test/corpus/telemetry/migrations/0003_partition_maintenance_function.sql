CREATE FUNCTION metrics.add_month(tenant text, month date) RETURNS regclass LANGUAGE plpgsql AS $$
DECLARE
    name text := format('sample_%s_%s', tenant, to_char(month, 'YYYY_MM'));
BEGIN
    EXECUTE format('CREATE TABLE metrics.%I (LIKE metrics.sample INCLUDING DEFAULTS)', name);
    EXECUTE format('ALTER TABLE metrics.%I ADD CONSTRAINT in_month CHECK (tenant IS NOT NULL AND tenant = %L AND at >= %L AND at < %L)', name, tenant, month::timestamp AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
    EXECUTE format('ALTER TABLE metrics.%I ATTACH PARTITION metrics.%I FOR VALUES FROM (%L) TO (%L)', 'sample_' || tenant, name, month::timestamp AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
    EXECUTE format('ALTER TABLE metrics.%I DROP CONSTRAINT in_month', name);
    RETURN name::regclass;
END
$$;
ALTER FUNCTION metrics.add_month(text, date) SET search_path = metrics, pg_temp;
SELECT metrics.add_month(t, d) FROM unnest(ARRAY['acme', 'globex']) t, unnest(ARRAY['2024-07-01', '2024-08-01']::date[]) d;
