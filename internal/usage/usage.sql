-- The hours (UTC) of a managed instance, as its agent saw them, and who worked on it while it was declared to be passive.
CREATE TABLE IF NOT EXISTS twinspan.usage_hour (
    hour        timestamptz PRIMARY KEY,
    tier        text NOT NULL,
    vcores      integer NOT NULL,
    storage     bigint NOT NULL,
    used        bigint NOT NULL,
    role        text NOT NULL,
    passive     boolean NOT NULL,
    first_at    timestamptz NOT NULL,
    last_at     timestamptz NOT NULL,
    gap_seconds double precision NOT NULL,
    unlogged    boolean NOT NULL
);
CREATE TABLE IF NOT EXISTS twinspan.usage_void (
    hour        timestamptz NOT NULL,
    role        text NOT NULL,
    database    text NOT NULL,
    application text NOT NULL,
    client      text NOT NULL,
    first_at    timestamptz NOT NULL,
    PRIMARY KEY (hour, role, database, application, client)
);
