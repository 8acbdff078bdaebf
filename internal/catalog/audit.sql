-- How a secondary compares itself with its primary in the background. rate, bytes a
-- second, is null while nobody has chosen one; both sides have it, the rest is of the
-- secondary's time in an epoch. A pass is under way while ended lies before began.
CREATE TABLE IF NOT EXISTS twinspan.audit (
    link  uuid PRIMARY KEY REFERENCES twinspan.link ON DELETE CASCADE,
    rate  bigint,
    epoch bigint NOT NULL DEFAULT 0,
    since timestamptz NOT NULL DEFAULT now(),
    began timestamptz,
    ended timestamptz
);
-- What is compared, with how far its comparison has come (upto, a key) and what of it
-- differs: keys, no values.
CREATE TABLE IF NOT EXISTS twinspan.audit_item (
    link      uuid NOT NULL REFERENCES twinspan.audit ON DELETE CASCADE,
    kind      text NOT NULL,
    name      text NOT NULL,
    bytes     bigint NOT NULL DEFAULT 0,
    divided   boolean NOT NULL DEFAULT false,
    skipped   text NOT NULL DEFAULT '',
    compared  timestamptz,
    equal     timestamptz,
    position  text NOT NULL DEFAULT '',
    upto      text[],
    begun     timestamptz,
    start     text NOT NULL DEFAULT '',
    odd       boolean NOT NULL DEFAULT false,
    differs   jsonb NOT NULL DEFAULT '[]',
    more      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (link, kind, name)
);
