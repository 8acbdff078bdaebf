CREATE TYPE platform.point_in_time AS (at timestamptz, label text);
CREATE TABLE platform.marks OF platform.point_in_time (PRIMARY KEY (at), label DEFAULT 'none');
INSERT INTO platform.marks VALUES ('2024-01-01', 'new year'), ('2024-02-29', DEFAULT);
ALTER TYPE platform.point_in_time ADD ATTRIBUTE weight int CASCADE;
UPDATE platform.marks SET weight = 2;
ALTER TABLE platform.marks NOT OF;
