ALTER TYPE priority ADD VALUE IF NOT EXISTS 'urgent' AFTER 'high';
ALTER TYPE priority ADD VALUE 'trivial' BEFORE 'low';
ALTER TYPE priority RENAME VALUE 'normal' TO 'medium';
