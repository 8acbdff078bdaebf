SELECT tenant, count(*) AS n, max(at) AS newest, random() AS r INTO metrics.tenant_overview FROM metrics.sample GROUP BY tenant;
CREATE TABLE metrics.empty_copy AS TABLE metrics.tenant_overview WITH NO DATA;
