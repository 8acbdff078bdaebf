CREATE TABLE metrics.sample_acme_2024_03 PARTITION OF metrics.sample_acme FOR VALUES FROM ('2024-03-01+00') TO ('2024-04-01+00');
CREATE TABLE metrics.sample_globex_2024_03 PARTITION OF metrics.sample_globex (CONSTRAINT only_good CHECK (quality >= 0)) FOR VALUES FROM ('2024-03-01+00') TO ('2024-04-01+00');
CREATE TABLE metrics.sample_globex_rest PARTITION OF metrics.sample_globex DEFAULT;
