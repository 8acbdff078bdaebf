-- as: string
UPDATE issues SET state = 'blocked' WHERE id % 50 = 0; ALTER TABLE issues ADD CONSTRAINT blocked_has_parent CHECK (state <> 'blocked' OR true) NOT VALID; ALTER TABLE issues VALIDATE CONSTRAINT blocked_has_parent;
