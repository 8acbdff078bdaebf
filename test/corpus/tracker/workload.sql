-- What the tracker's sessions do all day. Each part is sent as one string. A part may
-- say from which migration on it works, and until which one.

-- @open_issue
INSERT INTO issues (project_id, title, body, custom) VALUES (1 + (random() * 9)::int, 'Load ' || random(), repeat('x', (random() * 3000)::int), '{"area": "a1"}');

-- @close_issue
UPDATE issues SET state = 'closed' WHERE id = (SELECT id FROM issues WHERE state <> 'closed' ORDER BY random() LIMIT 1);

-- @edit_issue
UPDATE issues SET title = title || '.', custom = jsonb_set(custom, '{n}', to_jsonb((random() * 100)::int)) WHERE id = (SELECT id FROM issues ORDER BY random() LIMIT 1);

-- @renumber
BEGIN;
SET CONSTRAINTS issues_number_key DEFERRED;
UPDATE issues SET number = -number WHERE project_id = 3 AND id <= 60;
COMMIT;

-- @delete_issue
DELETE FROM issues WHERE id = (SELECT id FROM issues WHERE id > 500 ORDER BY random() LIMIT 1);

-- @comment until 0019
INSERT INTO comments (issue_id, body, reactions) VALUES (1 + (random() * 450)::int, 'load', 'up=>1');
UPDATE comments SET reactions = coalesce(reactions, '') || hstore('down', (random() * 9)::int::text) WHERE id = (SELECT id FROM comments ORDER BY random() LIMIT 1);

-- @note from 0019
INSERT INTO notes (subject_type, subject_id, body) VALUES ('issue', 1 + (random() * 450)::int, 'load');

-- @bot until 0019
BEGIN;
SET LOCAL ROLE "Tracker-Bot";
INSERT INTO comments (issue_id, body) SELECT 1 + (random() * 450)::int, 'beep ' || n FROM generate_series(1, 3) n;
COMMIT;

-- @audit
INSERT INTO audit_login (login, success) SELECT 'Login' || n % 2, true FROM generate_series(1, 4) n;
DELETE FROM audit_login WHERE ctid = (SELECT ctid FROM audit_login ORDER BY random() LIMIT 1);
UPDATE audit_login SET success = false WHERE ctid = (SELECT ctid FROM audit_login ORDER BY random() LIMIT 1);

-- @user_settings
UPDATE users SET settings = settings || hstore('seen', now()::text) WHERE login = ('login' || (1 + (random() * 90)::int))::citext;

-- @signup until 0010
INSERT INTO users (email, login) VALUES (md5(random()::text) || '@new.example', md5(random()::text));

-- @signup_with_locale from 0010
INSERT INTO users (email, login, locale) VALUES (md5(random()::text) || '@new.example', md5(random()::text), 'fr');

-- @leave
DELETE FROM live_users WHERE id = (SELECT id FROM live_users WHERE email LIKE '%@new.example' ORDER BY random() LIMIT 1);

-- @wiki
SELECT wiki.save(id, repeat(md5(random()::text), 120)) FROM wiki.pages ORDER BY random() LIMIT 1;

-- @wiki_tree until 0023
BEGIN;
UPDATE wiki.pages SET parent_id = (SELECT id FROM wiki.pages WHERE path = 'root.p1') WHERE path = 'root.p' || (2 + (random() * 70)::int);
SELECT count(*) FROM wiki.tree;
COMMIT;

-- @assets until 0027
INSERT INTO "Media Store".images ("fileName", width, height) VALUES ('load', 1, 2);
UPDATE "Media Store".assets SET tags = tags || '{x}'::text[] WHERE id = 1 + (random() * 80)::int AND coalesce(cardinality(tags), 0) < 20;

-- @assets_renamed from 0027
INSERT INTO media.images (file_name, width, height) VALUES ('load', 1, 2);
UPDATE media.assets SET tags = tags || '{x}'::text[] WHERE id = 1 + (random() * 80)::int AND coalesce(cardinality(tags), 0) < 20;

-- @queue
WITH m AS (SELECT id FROM mail_queue ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) DELETE FROM mail_queue WHERE id IN (SELECT id FROM m);
INSERT INTO mail_queue (recipient, subject, body) VALUES ('a@b.example', 'again', repeat('b', 500)), ('c@d.example', 'again', NULL);

-- @counter until 0030
UPDATE legacy_counter SET value = value + 1 WHERE name = 'c1';
INSERT INTO legacy_counter VALUES ('LOUD', 1);

-- @deliveries until 0037
INSERT INTO webhook_deliveries (webhook_id, status, response) SELECT id, 200, 'ok' FROM webhooks;
DELETE FROM webhook_deliveries WHERE ctid IN (SELECT ctid FROM webhook_deliveries ORDER BY random() LIMIT 2);

-- @cache until 0033
INSERT INTO cache_entries VALUES ('k' || (random() * 50)::int, '\xff') ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value;

-- @upsert until 0036
INSERT INTO feature_flags VALUES ('flag' || (random() * 20)::int, true, 0.5) ON CONFLICT (name) DO UPDATE SET rollout = feature_flags.rollout / 2;

-- @budget until 0016
UPDATE projects SET budget.amount = (budget).amount + 1 WHERE id = 1 + (random() * 9)::int;

-- @blocked from 0008
UPDATE issues SET state = 'blocked' WHERE id = (SELECT id FROM issues WHERE state = 'open' ORDER BY random() LIMIT 1);

-- @stats
SELECT count(*) FROM project_stats;
