-- Roles belong to the server; each server that runs the service has them.
CREATE ROLE telemetry_admin NOLOGIN;
CREATE ROLE telemetry_ingest LOGIN;
CREATE ROLE telemetry_reader NOLOGIN;
CREATE ROLE "tenant-user" LOGIN;
