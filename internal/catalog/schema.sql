-- The schema twinspan in a linked database: everything that an agent knows of a
-- link, on either side. It holds no table data and takes part in no link.
CREATE SCHEMA twinspan;
COMMENT ON SCHEMA twinspan IS 'Twinspan: the links of this database. Made and removed by the agent.';

-- A key, for every table of the primary is published and must stay updatable.
CREATE TABLE twinspan.version (version integer PRIMARY KEY);
INSERT INTO twinspan.version VALUES (1);

-- One row for each link of this database. agent is the agent that works on it.
CREATE TABLE twinspan.link (
    id               uuid PRIMARY KEY,
    name             text NOT NULL UNIQUE,
    agent            uuid NOT NULL,
    peer             text NOT NULL,
    peer_agent       uuid NOT NULL,
    peer_database    text NOT NULL,
    role             text NOT NULL CHECK (role IN ('primary', 'secondary')),
    phase            text NOT NULL,
    epoch            bigint NOT NULL,
    operation        text NOT NULL DEFAULT '',
    diverged         boolean NOT NULL DEFAULT false,
    parted_lsn       pg_lsn,
    mode             text NOT NULL DEFAULT 'async' CHECK (mode IN ('async', 'sync')),
    sync_timeout     integer NOT NULL DEFAULT 0,
    on_conflict      text NOT NULL DEFAULT 'wait',
    on_isolation     text NOT NULL DEFAULT 'serve',
    max_rate         bigint NOT NULL DEFAULT 0,
    setting_change   bigint NOT NULL DEFAULT 0,
    renewing         boolean NOT NULL DEFAULT false,
    timeline         bigint NOT NULL DEFAULT 0,
    suspended        boolean NOT NULL DEFAULT false,
    change           bigint NOT NULL DEFAULT 0,
    deleting         boolean NOT NULL DEFAULT false,
    created_database boolean NOT NULL DEFAULT false,
    primary_address  text NOT NULL DEFAULT '',
    system_id        text NOT NULL DEFAULT '',
    seeded           boolean NOT NULL DEFAULT false,
    start_lsn        pg_lsn,
    problem          jsonb,
    notices          jsonb NOT NULL DEFAULT '[]',
    last_failover    jsonb,
    created_at       timestamptz NOT NULL DEFAULT now()
);

-- What shows an agent that a link's record is its own: a code that only who has the
-- secret of its directory can compute, of this database, the link and the agent.
CREATE TABLE twinspan.proof (
    link  uuid PRIMARY KEY REFERENCES twinspan.link ON DELETE CASCADE,
    proof text NOT NULL
);

-- Which process works the links of an agent in this database: who has the row works, and
-- its sessions are let in. keeper and began name the session by which others see
-- that it lives; place says where it runs, for people.
CREATE TABLE twinspan.lease (
    agent  uuid PRIMARY KEY,
    term   bigint NOT NULL,
    holder uuid NOT NULL,
    keeper integer NOT NULL,
    began  timestamptz NOT NULL,
    place  text NOT NULL
);

-- The keys of a link's peer, and where it is dialled, as the agent's directory has them:
-- for an agent that has lost its directory.
CREATE TABLE twinspan.peer (
    link         uuid PRIMARY KEY REFERENCES twinspan.link ON DELETE CASCADE,
    endpoint     text NOT NULL,
    fingerprints text[] NOT NULL
);

-- The plan of a seeding, on the secondary. session counts the snapshots that
-- were used. A chunk's rows came from first_session and are those of session;
-- both are null while nothing of it is copied.
CREATE TABLE twinspan.seed_session (
    link      uuid NOT NULL REFERENCES twinspan.link ON DELETE CASCADE,
    session   integer NOT NULL,
    token     text NOT NULL,
    lsn       pg_lsn NOT NULL,
    xid       bigint NOT NULL,
    system_id text NOT NULL,
    encoding  text NOT NULL,
    PRIMARY KEY (link, session)
);
CREATE TABLE twinspan.seed_table (
    link        uuid NOT NULL REFERENCES twinspan.link ON DELETE CASCADE,
    oid         oid NOT NULL,
    schema_name text NOT NULL,
    table_name  text NOT NULL,
    filenode    oid NOT NULL,
    bytes       bigint NOT NULL,
    spec        jsonb NOT NULL,
    PRIMARY KEY (link, oid)
);
CREATE TABLE twinspan.seed_chunk (
    link          uuid NOT NULL,
    oid           oid NOT NULL,
    number        integer NOT NULL,
    first_block   bigint NOT NULL,
    end_block     bigint,
    bytes         bigint NOT NULL,
    first_session integer,
    session       integer,
    rows          bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (link, oid, number),
    FOREIGN KEY (link, oid) REFERENCES twinspan.seed_table ON DELETE CASCADE
);
-- The schema in pieces: roles and what tables need before the data, indexes,
-- constraints and the rest after it. A piece is done in the transaction that
-- builds it.
CREATE TABLE twinspan.seed_entry (
    link        uuid NOT NULL REFERENCES twinspan.link ON DELETE CASCADE,
    number      integer NOT NULL,
    section     text NOT NULL,
    kind        text NOT NULL,
    schema_name text NOT NULL,
    name        text NOT NULL,
    spec        jsonb NOT NULL,
    sql         text NOT NULL,
    done        boolean NOT NULL DEFAULT false,
    PRIMARY KEY (link, number)
);

-- The large objects of a secondary. They are brought in passes: next is set while
-- one is under way, and its ranges (object ids behind after, up to upto) are what
-- is left of it. since tells the next pass what is younger than the last.
CREATE TABLE twinspan.large_object (
    link          uuid PRIMARY KEY REFERENCES twinspan.link ON DELETE CASCADE,
    every         integer NOT NULL,
    since         bigint NOT NULL DEFAULT 0,
    counters      text NOT NULL DEFAULT '',
    looked        timestamptz,
    as_of         timestamptz,
    objects       bigint NOT NULL DEFAULT 0,
    next          bigint,
    pass_since    bigint NOT NULL DEFAULT 0,
    pass_counters text NOT NULL DEFAULT '',
    pass_began    timestamptz
);
CREATE TABLE twinspan.large_object_range (
    link  uuid NOT NULL REFERENCES twinspan.large_object ON DELETE CASCADE,
    upto  bigint NOT NULL,
    after bigint NOT NULL,
    PRIMARY KEY (link, upto)
);

-- What a secondary knows of differences of schema: whether the schemas were compared
-- since the copy, which differences are known and which ones stopped the link.
CREATE TABLE twinspan.schema_watch (
    link     uuid PRIMARY KEY REFERENCES twinspan.link ON DELETE CASCADE,
    compared boolean NOT NULL DEFAULT false,
    known    jsonb NOT NULL DEFAULT '[]',
    found    jsonb NOT NULL DEFAULT '[]'
);

-- Tables of the primary whose replica identity a link changed, with what it was, for the
-- undoing, and what was chosen: NULL is FULL, - nothing, for the server takes none.
CREATE TABLE twinspan.identity (
    oid          oid PRIMARY KEY,
    was          "char" NOT NULL,
    was_index    name,
    chosen       "char",
    chosen_index name
);

-- What the primary tells the secondary at an exact place of the stream. Rows are
-- deleted once they are old; the secondary keeps none.
CREATE TABLE twinspan.signal (
    id      bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind    text NOT NULL,
    payload jsonb NOT NULL DEFAULT '{}'
);

-- What a side had committed as the primary when a forced failover left it behind:
-- read from the slot of then, kept until somebody discards it. There is one parting
-- for each such failover; epoch is the one that it began. A rejoin, once somebody has
-- accepted what it takes, clears the rows that were lost or changed, has settled what
-- lies at their keys when they are as the new primary has them, and has mended the
-- parting when everything is.
CREATE TABLE twinspan.lost (
    link      uuid NOT NULL REFERENCES twinspan.link ON DELETE CASCADE,
    epoch     bigint NOT NULL,
    parted    pg_lsn NOT NULL,
    read_to   pg_lsn NOT NULL,
    complete  boolean NOT NULL DEFAULT false,
    problem   jsonb,
    accepted  text[],
    cleared   boolean NOT NULL DEFAULT false,
    settled   boolean NOT NULL DEFAULT false,
    mended    boolean NOT NULL DEFAULT false,
    discarded boolean NOT NULL DEFAULT false,
    PRIMARY KEY (link, epoch)
);
CREATE TABLE twinspan.lost_transaction (
    link    uuid NOT NULL,
    epoch   bigint NOT NULL,
    number  bigint NOT NULL,
    xid     bigint NOT NULL,
    lsn     pg_lsn NOT NULL,
    at      timestamptz NOT NULL,
    changes bigint NOT NULL,
    PRIMARY KEY (link, epoch, number),
    FOREIGN KEY (link, epoch) REFERENCES twinspan.lost ON DELETE CASCADE
);
-- Tables as they were described before their changes. Members of key_columns are
-- places in columns; as_text marks types without an equality, always columns
-- GENERATED ALWAYS AS IDENTITY.
CREATE TABLE twinspan.lost_table (
    link        uuid NOT NULL,
    epoch       bigint NOT NULL,
    number      integer NOT NULL,
    oid         oid NOT NULL,
    schema_name text NOT NULL,
    table_name  text NOT NULL,
    columns     text[] NOT NULL,
    key_columns int2[] NOT NULL,
    as_text     boolean[] NOT NULL,
    always      boolean[] NOT NULL,
    PRIMARY KEY (link, epoch, number),
    FOREIGN KEY (link, epoch) REFERENCES twinspan.lost ON DELETE CASCADE
);
-- Rows as text, each with a letter for each column: v value, n NULL, u left in TOAST
-- and not told, - not told of an old row, l a value that lies in lost_value.
CREATE TABLE twinspan.lost_change (
    link        uuid NOT NULL,
    epoch       bigint NOT NULL,
    number      bigint NOT NULL,
    transaction bigint NOT NULL,
    kind        text NOT NULL,
    table_number integer,
    old_marks   text NOT NULL DEFAULT '',
    old_row     text[],
    new_marks   text NOT NULL DEFAULT '',
    new_row     text[],
    detail      text NOT NULL DEFAULT '',
    PRIMARY KEY (link, epoch, number),
    FOREIGN KEY (link, epoch) REFERENCES twinspan.lost ON DELETE CASCADE
);
-- Tables that a rejoin copies anew, and those of which it overwrites the rows at
-- some keys. table_key holds numbers of columns.
CREATE TABLE twinspan.lost_mend (
    link      uuid NOT NULL,
    epoch     bigint NOT NULL,
    oid       oid NOT NULL,
    anew      boolean NOT NULL,
    table_key int2[] NOT NULL,
    PRIMARY KEY (link, epoch, oid),
    FOREIGN KEY (link, epoch) REFERENCES twinspan.lost ON DELETE CASCADE
);
CREATE TABLE twinspan.lost_key (
    link  uuid NOT NULL,
    epoch bigint NOT NULL,
    oid   oid NOT NULL,
    key   text[] NOT NULL,
    id    bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    FOREIGN KEY (link, epoch) REFERENCES twinspan.lost ON DELETE CASCADE
);
CREATE INDEX ON twinspan.lost_key (link, epoch, oid, id);
-- Long values in pieces, in the database's encoding.
CREATE TABLE twinspan.lost_value (
    link     uuid NOT NULL,
    epoch    bigint NOT NULL,
    change   bigint NOT NULL,
    of_new   boolean NOT NULL,
    position integer NOT NULL,
    piece    integer NOT NULL,
    value    bytea NOT NULL,
    PRIMARY KEY (link, epoch, change, of_new, position, piece),
    FOREIGN KEY (link, epoch) REFERENCES twinspan.lost ON DELETE CASCADE
);

REVOKE ALL ON SCHEMA twinspan FROM PUBLIC;
