DROP OPERATOR metrics.+ (metrics.bucket[], metrics.bucket[]);
DROP AGGREGATE metrics.merge_all (metrics.bucket[]);
CREATE OR REPLACE FUNCTION metrics.merge(a metrics.bucket[], b metrics.bucket[]) RETURNS metrics.bucket[] LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN (SELECT array_agg(ROW(u, c)::metrics.bucket ORDER BY u) FROM (SELECT (x).upper AS u, sum((x).count)::bigint AS c FROM unnest(a || b) x GROUP BY 1) y);
END
$$;
CREATE AGGREGATE metrics.combine (metrics.bucket[]) (SFUNC = metrics.merge, STYPE = metrics.bucket[]);
CREATE OPERATOR metrics.|+| (LEFTARG = metrics.bucket[], RIGHTARG = metrics.bucket[], FUNCTION = metrics.merge);
ALTER OPERATOR metrics.|+| (metrics.bucket[], metrics.bucket[]) OWNER TO telemetry_admin;
