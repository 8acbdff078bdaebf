-- as: transaction
ALTER TABLE media.assets ADD COLUMN checksum text DEFAULT md5('x') NOT NULL;
CREATE TABLE media.sounds (bitrate int) INHERITS (media.assets);
INSERT INTO media.sounds (file_name, bitrate) VALUES ('s1', 128), ('s2', 320);
ALTER TABLE media.videos NO INHERIT media.assets;
ALTER TABLE ONLY media.assets ADD CONSTRAINT bytes_known CHECK (bytes >= 0) NO INHERIT;
ALTER TABLE media.assets ALTER COLUMN tags SET DEFAULT '{}';
