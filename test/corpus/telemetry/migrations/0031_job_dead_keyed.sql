-- as: string
DELETE FROM queue.job_dead a USING queue.job_dead b WHERE a.id = b.id AND a.ctid < b.ctid; ALTER TABLE queue.job_dead ADD PRIMARY KEY (id); ALTER TABLE queue.job_dead DROP COLUMN locked_by, DROP COLUMN locked_at; INSERT INTO queue.job_dead (id, queue) VALUES (-1, 'test;'), (-2, '''');
