ALTER TABLE automations ALTER COLUMN action TYPE jsonb USING action::jsonb;
ALTER TABLE "Media Store".videos ALTER COLUMN duration TYPE int USING extract(epoch FROM duration)::int;
