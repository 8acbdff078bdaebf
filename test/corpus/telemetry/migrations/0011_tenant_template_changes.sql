CREATE OR REPLACE FUNCTION platform.tenant_schema(slug text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 'tenant_' || replace(slug, ' ', '_');
CREATE OR REPLACE PROCEDURE platform.drop_tenant(slug text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP SCHEMA %I CASCADE', platform.tenant_schema(slug));
    DELETE FROM platform.tenants t WHERE t.slug = drop_tenant.slug;
END
$$;
CALL platform.create_tenant('short lived');
CALL platform.drop_tenant('short lived');
