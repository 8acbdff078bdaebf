-- as: transaction
UPDATE issues SET priority = 'urgent' WHERE id % 9 = 0;
UPDATE issues SET priority = 'trivial' WHERE id % 11 = 0;
ALTER TABLE issues ALTER COLUMN priority SET DEFAULT 'trivial';
