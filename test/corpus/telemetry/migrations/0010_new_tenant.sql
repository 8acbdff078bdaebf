CALL platform.create_tenant('initech', 'startup');
GRANT ALL ON ALL TABLES IN SCHEMA tenant_initech TO telemetry_admin;
