CREATE STATISTICS metrics.series_stats ON tenant, kind FROM metrics.series;
ALTER STATISTICS metrics.series_stats RENAME TO series_tenant_kind;
ALTER STATISTICS metrics.series_tenant_kind OWNER TO telemetry_admin;
ALTER TABLE metrics.series ALTER COLUMN name SET STATISTICS 300, ALTER COLUMN tenant SET (n_distinct = 5);
VACUUM (ANALYZE) metrics.series;
