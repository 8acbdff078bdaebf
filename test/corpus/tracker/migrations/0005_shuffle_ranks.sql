-- as: transaction
ALTER TABLE comments ADD COLUMN rank double precision NOT NULL DEFAULT random(), ADD COLUMN seq bigserial;
ALTER TABLE comments ADD CONSTRAINT comments_rank_range CHECK (rank >= 0 AND rank <= 1);
GRANT USAGE ON SEQUENCE comments_seq_seq TO "Tracker-Bot", tracker;
