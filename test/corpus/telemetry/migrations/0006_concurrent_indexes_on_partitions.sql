CREATE INDEX CONCURRENTLY ON metrics.sample_acme_2024_01 (quality) WHERE quality = 0;
CREATE INDEX CONCURRENTLY "Ix On Others" ON metrics.sample_others USING btree (tenant, at);
REINDEX INDEX CONCURRENTLY metrics."Ix On Others";
DROP INDEX CONCURRENTLY metrics."Ix On Others";
