CREATE TEMPORARY TABLE import (line text, n int);
INSERT INTO import SELECT 'holiday', i FROM generate_series(1, 10) i;
ALTER TABLE import ADD COLUMN day date;
UPDATE import SET day = '2024-12-20'::date + n;
INSERT INTO holidays SELECT day, '{DE,AT}' FROM import;
CREATE INDEX ON import (n);
DROP TABLE import;
CREATE TEMP TABLE gone ON COMMIT DROP AS SELECT 1;
