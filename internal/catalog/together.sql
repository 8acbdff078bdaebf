-- Changes of places of several links as one. together is at the agent that drives them all, in
-- the database of each of them, and says what was decided; null is not yet. In that of the
-- first it is decided; the others get it afterwards, for when the first is removed.
CREATE TABLE IF NOT EXISTS twinspan.together (
    failover text PRIMARY KEY,
    link     uuid NOT NULL REFERENCES twinspan.link ON DELETE CASCADE,
    decided  boolean
);
-- promise is of a secondary that changes places with others, and does what was decided there:
-- agent drives them all, leader is the link whose database has the decision.
CREATE TABLE IF NOT EXISTS twinspan.promise (
    link      uuid PRIMARY KEY REFERENCES twinspan.link ON DELETE CASCADE,
    operation text NOT NULL,
    failover  text NOT NULL,
    leader    uuid NOT NULL,
    agent     uuid NOT NULL
);
