-- A project tracker with a content management system, in the public schema as
-- frameworks like it, with a few schemas beside it.
CREATE EXTENSION citext;
CREATE EXTENSION hstore;
CREATE EXTENSION btree_gist;
CREATE SCHEMA wiki;
CREATE SCHEMA "Media Store";
GRANT USAGE ON SCHEMA wiki, "Media Store" TO tracker_viewer, tracker, "Tracker-Bot";
GRANT ALL ON SCHEMA public TO tracker;

-- Types.
CREATE DOMAIN email_address AS citext CHECK (VALUE ~ '^[^@]+@[^@]+$');
CREATE DOMAIN ltree_path AS text COLLATE "C" CHECK (VALUE ~ '^[a-z0-9_]+(\.[a-z0-9_]+)*$');
CREATE DOMAIN positive_int AS int DEFAULT 1 CONSTRAINT is_positive CHECK (VALUE > 0);
CREATE TYPE issue_state AS ENUM ('open', 'in progress', 'closed');
CREATE TYPE priority AS ENUM ('low', 'normal', 'high');
CREATE TYPE money_amount AS (amount numeric(12,2), currency char(3));
CREATE TYPE time_slot AS RANGE (subtype = timestamptz, subtype_diff = tstzrange_subdiff);
CREATE TYPE geo AS (lat float8, lon float8);
CREATE TYPE wiki.page_kind AS ENUM ('page', 'template');

-- People.
CREATE TABLE users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email email_address NOT NULL UNIQUE,
    login citext NOT NULL UNIQUE,
    display_name text,
    settings hstore NOT NULL DEFAULT '',
    deleted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE teams (id serial PRIMARY KEY, name text NOT NULL, parent_id int REFERENCES teams, path ltree_path UNIQUE);
CREATE TABLE team_members (team_id int REFERENCES teams ON DELETE CASCADE, user_id uuid REFERENCES users ON DELETE CASCADE, role text NOT NULL DEFAULT 'member', PRIMARY KEY (team_id, user_id));
CREATE TABLE user_emails (user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE, email email_address PRIMARY KEY, verified boolean);
CREATE TABLE api_tokens (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE, digest bytea NOT NULL, scopes text[] NOT NULL DEFAULT '{}', last_used inet, expires_at timestamptz);
CREATE TABLE sessions (sid text PRIMARY KEY, data jsonb, expires timestamp);
CREATE TABLE notifications (id bigserial PRIMARY KEY, user_id uuid REFERENCES users ON DELETE CASCADE, kind text NOT NULL, payload jsonb NOT NULL DEFAULT '{}', read_at timestamptz);
CREATE INDEX notifications_unread ON notifications (user_id) WHERE read_at IS NULL;
CREATE TABLE schema_migrations (version varchar(255) NOT NULL PRIMARY KEY);
CREATE TABLE ar_internal_metadata (key varchar PRIMARY KEY, value varchar, created_at timestamp(6) NOT NULL DEFAULT now());

-- Projects and issues.
CREATE TABLE projects (
    id serial PRIMARY KEY,
    key citext NOT NULL UNIQUE,
    name varchar(100) NOT NULL,
    owner_id uuid REFERENCES users,
    budget money_amount,
    features text[] NOT NULL DEFAULT ARRAY['issues', 'wiki'],
    next_number int NOT NULL DEFAULT 1,
    archived boolean DEFAULT false
);
CREATE TABLE milestones (id serial PRIMARY KEY, project_id int NOT NULL REFERENCES projects ON DELETE CASCADE, title text NOT NULL, during daterange, EXCLUDE USING gist (project_id WITH =, during WITH &&));
CREATE TABLE labels (id serial PRIMARY KEY, project_id int REFERENCES projects ON DELETE CASCADE, name citext NOT NULL, color varchar(7) NOT NULL DEFAULT '#cccccc');
CREATE TABLE issues (
    id bigserial PRIMARY KEY,
    project_id int NOT NULL REFERENCES projects ON DELETE CASCADE,
    number int NOT NULL,
    title text NOT NULL,
    body text,
    state issue_state NOT NULL DEFAULT 'open',
    priority priority NOT NULL DEFAULT 'normal',
    reporter_id uuid REFERENCES users,
    milestone_id int REFERENCES milestones ON DELETE SET NULL,
    parent_id bigint REFERENCES issues ON DELETE SET NULL,
    custom jsonb NOT NULL DEFAULT '{}',
    estimate interval,
    due date,
    deleted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT issues_number_key UNIQUE (project_id, number) DEFERRABLE INITIALLY IMMEDIATE
);
CREATE INDEX issues_custom_idx ON issues USING gin (custom jsonb_path_ops);
CREATE INDEX issues_open_idx ON issues (project_id, priority DESC) WHERE deleted_at IS NULL AND state <> 'closed';
CREATE INDEX issues_title_lower ON issues (lower(title) text_pattern_ops, (custom ->> 'area'));
CREATE TABLE issue_labels (issue_id bigint REFERENCES issues ON DELETE CASCADE, label_id int REFERENCES labels ON DELETE CASCADE, PRIMARY KEY (issue_id, label_id));
CREATE TABLE issue_assignees (issue_id bigint REFERENCES issues ON DELETE CASCADE, user_id uuid REFERENCES users ON DELETE CASCADE, PRIMARY KEY (issue_id, user_id));
CREATE TABLE issue_links (source bigint REFERENCES issues ON DELETE CASCADE, target bigint REFERENCES issues ON DELETE CASCADE, kind text, PRIMARY KEY (source, target, kind));
CREATE TABLE comments (id bigserial PRIMARY KEY, issue_id bigint NOT NULL REFERENCES issues ON DELETE CASCADE, author_id uuid REFERENCES users, body text NOT NULL, reactions hstore, created_at timestamptz DEFAULT now());
CREATE TABLE worklogs (id bigserial PRIMARY KEY, issue_id bigint NOT NULL REFERENCES issues ON DELETE CASCADE, user_id uuid REFERENCES users, spent time_slot NOT NULL, EXCLUDE USING gist (user_id WITH =, spent WITH &&));
CREATE TABLE watchers (issue_id bigint REFERENCES issues ON DELETE CASCADE, user_id uuid REFERENCES users ON DELETE CASCADE, PRIMARY KEY (issue_id, user_id));
CREATE TABLE sprints (id serial PRIMARY KEY, project_id int REFERENCES projects ON DELETE CASCADE, name text, starts timestamptz, ends timestamptz, CHECK (starts < ends));
CREATE TABLE sprint_issues (sprint_id int REFERENCES sprints ON DELETE CASCADE, issue_id bigint REFERENCES issues ON DELETE CASCADE, rank numeric, PRIMARY KEY (sprint_id, issue_id));
CREATE TABLE boards (id serial PRIMARY KEY, project_id int REFERENCES projects ON DELETE CASCADE, columns jsonb NOT NULL DEFAULT '[]');
CREATE TABLE custom_fields (id serial PRIMARY KEY, project_id int REFERENCES projects ON DELETE CASCADE, name text, kind "char" NOT NULL DEFAULT 't', options text[]);
CREATE TABLE automations (id serial PRIMARY KEY, project_id int REFERENCES projects ON DELETE CASCADE, condition jsonpath, action json);
CREATE TABLE webhooks (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), project_id int REFERENCES projects ON DELETE CASCADE, url text NOT NULL, secret bytea);
CREATE TABLE webhook_deliveries (webhook_id uuid REFERENCES webhooks ON DELETE CASCADE, at timestamptz DEFAULT now(), status int, response text);
CREATE TABLE rooms (id serial PRIMARY KEY, name text, place geo);
CREATE TABLE bookings (room_id int REFERENCES rooms, during tstzrange, title text, EXCLUDE USING gist (room_id WITH =, during WITH &&));

-- Content with versions.
CREATE TABLE wiki.spaces (id serial PRIMARY KEY, slug citext UNIQUE, title text);
CREATE TABLE wiki.pages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    space_id int NOT NULL REFERENCES wiki.spaces,
    kind wiki.page_kind NOT NULL DEFAULT 'page',
    path ltree_path NOT NULL,
    parent_id uuid REFERENCES wiki.pages DEFERRABLE INITIALLY DEFERRED,
    title text NOT NULL,
    current_version int NOT NULL DEFAULT 0,
    search tsvector,
    deleted boolean NOT NULL DEFAULT false,
    UNIQUE (space_id, path)
);
CREATE INDEX pages_search ON wiki.pages USING gist (search);
CREATE TABLE wiki.page_versions (page_id uuid REFERENCES wiki.pages ON DELETE CASCADE, version int, body text NOT NULL, meta jsonb, author_id uuid, saved_at timestamptz DEFAULT clock_timestamp(), PRIMARY KEY (page_id, version));
CREATE TABLE wiki.page_links (source uuid REFERENCES wiki.pages ON DELETE CASCADE, target text);
CREATE TABLE wiki.page_comments (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, page_id uuid REFERENCES wiki.pages ON DELETE CASCADE, thread int[] NOT NULL DEFAULT '{}', body text);
CREATE TABLE wiki.redirects (old_path ltree_path PRIMARY KEY, new_path ltree_path NOT NULL);
CREATE TABLE wiki.drafts (user_id uuid, page_id uuid, body text, PRIMARY KEY (user_id, page_id));
CREATE TABLE wiki.templates (name text PRIMARY KEY, source xml);

-- Inheritance: every kind of asset has the columns of assets.
CREATE TABLE "Media Store".assets (id bigserial PRIMARY KEY, "fileName" text NOT NULL, bytes bigint, tags text[], "uploadedAt" timestamptz DEFAULT now());
CREATE TABLE "Media Store".images (width int, height int, PRIMARY KEY (id)) INHERITS ("Media Store".assets);
CREATE TABLE "Media Store".videos (duration interval, codec text DEFAULT 'h264', PRIMARY KEY (id)) INHERITS ("Media Store".assets);
CREATE TABLE "Media Store"."Asset Usage" (asset bigint, "used in" text, CHECK ("used in" <> ''));

-- Older parts of the application.
CREATE TABLE surveys (id serial PRIMARY KEY, title text, questions jsonb[]);
CREATE TABLE survey_answers (survey_id int REFERENCES surveys, answers int[][], taken bit(8));
CREATE TABLE news (id serial PRIMARY KEY, headline text, published tstzmultirange);
CREATE TABLE feature_flags (name text PRIMARY KEY, enabled boolean, rollout real);
CREATE TABLE holidays (day date PRIMARY KEY, countries char(2)[]);
CREATE TABLE legacy_counter (name text, value int);
CREATE TABLE mail_queue (id bigserial PRIMARY KEY, recipient email_address, subject text, body text, attempts smallint DEFAULT 0, locked_until timestamptz);
CREATE UNLOGGED TABLE cache_entries (key text PRIMARY KEY, value bytea);

-- Audit tables without a primary key; rows come from triggers.
CREATE TABLE audit_log (at timestamptz NOT NULL DEFAULT clock_timestamp(), actor text DEFAULT current_user, table_name text NOT NULL, operation text NOT NULL, before jsonb, after jsonb, changed hstore);
CREATE TABLE audit_login (at timestamptz DEFAULT now(), login citext, success boolean);
ALTER TABLE audit_login REPLICA IDENTITY FULL;

CREATE FUNCTION audit_row() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO audit_log (table_name, operation, before, after, changed)
    VALUES (TG_TABLE_NAME, TG_OP, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END, CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END,
            CASE WHEN TG_OP = 'UPDATE' THEN hstore(NEW) - hstore(OLD) END);
    RETURN NULL;
END
$body$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON issues FOR EACH ROW EXECUTE FUNCTION audit_row();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON projects FOR EACH ROW EXECUTE FUNCTION audit_row();
CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at = now(); RETURN NEW; END;';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON issues FOR EACH ROW EXECUTE PROCEDURE set_updated_at();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON users FOR EACH ROW EXECUTE PROCEDURE set_updated_at();
CREATE FUNCTION number_issue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.number IS NULL THEN
        UPDATE projects SET next_number = next_number + 1 WHERE id = NEW.project_id RETURNING next_number - 1 INTO NEW.number;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER number_issue BEFORE INSERT ON issues FOR EACH ROW EXECUTE FUNCTION number_issue();
CREATE FUNCTION wiki.save(p uuid, text text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v int;
BEGIN
    UPDATE wiki.pages SET current_version = current_version + 1, search = to_tsvector('simple', left(text, 1000)) WHERE id = p RETURNING current_version INTO v;
    INSERT INTO wiki.page_versions (page_id, version, body) VALUES (p, v, text);
    RETURN v;
END
$$;

-- Views on views, rules.
CREATE VIEW live_issues AS SELECT * FROM issues WHERE deleted_at IS NULL;
CREATE VIEW open_issues AS SELECT id, project_id, number, title, priority FROM live_issues WHERE state <> 'closed';
CREATE VIEW urgent_issues AS SELECT o.*, p.key FROM open_issues o JOIN projects p ON p.id = o.project_id WHERE priority = 'high';
CREATE VIEW project_stats AS SELECT p.id, p.key, count(i.id) FILTER (WHERE i.state = 'open') AS open, count(i.id) AS total FROM projects p LEFT JOIN live_issues i ON i.project_id = p.id GROUP BY p.id;
CREATE VIEW live_users AS SELECT id, email, login, display_name FROM users WHERE deleted_at IS NULL;
CREATE RULE soft_delete AS ON DELETE TO live_users DO INSTEAD UPDATE users SET deleted_at = now() WHERE id = OLD.id;
CREATE RULE no_shouting AS ON INSERT TO legacy_counter WHERE NEW.name = upper(NEW.name) DO INSTEAD NOTHING;
CREATE RECURSIVE VIEW wiki.tree (id, path, depth) AS
    SELECT id, path::text, 1 FROM wiki.pages WHERE parent_id IS NULL UNION ALL SELECT p.id, t.path || '>' || p.title, t.depth + 1 FROM wiki.pages p JOIN tree t ON t.id = p.parent_id;
CREATE MATERIALIZED VIEW project_activity AS SELECT project_id, state, count(*) FROM issues GROUP BY 1, 2;

GRANT SELECT ON ALL TABLES IN SCHEMA public, wiki TO tracker_viewer;
GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA wiki TO tracker_editor;
GRANT ALL ON ALL TABLES IN SCHEMA public, wiki, "Media Store" TO tracker;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public, wiki, "Media Store" TO tracker, tracker_editor, "Tracker-Bot";
GRANT INSERT (issue_id, body), SELECT ON comments TO "Tracker-Bot";
COMMENT ON TABLE issues IS 'What is to be done';
COMMENT ON COLUMN issues.custom IS E'Fields of the project''s own\nby name';
COMMENT ON CONSTRAINT issues_number_key ON issues IS 'numbers are per project';
COMMENT ON TRIGGER audit ON issues IS 'who did what';
COMMENT ON TYPE money_amount IS 'never float';

-- Rows.
INSERT INTO users (email, login, display_name, settings) SELECT 'User' || i || '@Tracker.example', 'login' || i, 'User ' || i, hstore('theme', CASE i % 2 WHEN 0 THEN 'dark' END) FROM generate_series(1, 120) i;
INSERT INTO teams (name, parent_id, path) SELECT 'Team ' || i, NULLIF(i / 3, 0), 'org.t' || i FROM generate_series(1, 12) i;
INSERT INTO team_members SELECT row_number() OVER (ORDER BY login) % 12 + 1, id FROM users;
INSERT INTO projects (key, name, owner_id, budget) SELECT 'P' || i, 'Project ' || i, (SELECT id FROM users ORDER BY login OFFSET i LIMIT 1), ROW(i * 1000, 'EUR')::money_amount FROM generate_series(1, 10) i;
INSERT INTO milestones (project_id, title, during) SELECT p, 'M' || m, daterange('2024-01-01'::date + m * 30, '2024-01-31'::date + m * 30) FROM generate_series(1, 10) p, generate_series(1, 3) m;
INSERT INTO labels (project_id, name) SELECT p, 'Label ' || l FROM generate_series(1, 10) p, generate_series(1, 5) l;
INSERT INTO issues (project_id, title, body, state, priority, reporter_id, custom, estimate)
    SELECT i % 10 + 1, 'Issue ' || i, repeat('text ', i % 60), (enum_range(NULL::issue_state))[i % 3 + 1], (enum_range(NULL::priority))[i % 3 + 1],
           (SELECT id FROM users WHERE login = 'login' || (i % 100 + 1)), jsonb_build_object('area', 'a' || i % 4, 'n', i), make_interval(hours => i % 9) FROM generate_series(1, 500) i;
UPDATE issues SET parent_id = id / 2 WHERE id % 5 = 0;
INSERT INTO issue_labels SELECT i, i % 50 + 1 FROM generate_series(1, 500) i;
INSERT INTO comments (issue_id, body) SELECT i % 500 + 1, 'comment ' || i FROM generate_series(1, 400) i;
INSERT INTO notifications (user_id, kind) SELECT id, 'welcome' FROM users;
INSERT INTO rooms (name, place) SELECT 'Room ' || i, ROW(i, -i)::geo FROM generate_series(1, 5) i;
INSERT INTO bookings SELECT i % 5 + 1, tstzrange('2024-01-01'::timestamptz + i * interval '1 day', '2024-01-01'::timestamptz + i * interval '1 day' + interval '2 hours'), 'Meeting' FROM generate_series(1, 40) i;
INSERT INTO wiki.spaces (slug, title) SELECT 'space' || i, 'Space ' || i FROM generate_series(1, 3) i;
INSERT INTO wiki.pages (space_id, path, title) SELECT i % 3 + 1, 'root.p' || i, 'Page ' || i FROM generate_series(1, 80) i;
SELECT count(wiki.save(id, repeat('words of ' || title || ' ', 60))) FROM wiki.pages, generate_series(1, 2);
INSERT INTO "Media Store".images ("fileName", width, height) SELECT 'i' || i, i, i FROM generate_series(1, 30) i;
INSERT INTO "Media Store".videos ("fileName", duration) SELECT 'v' || i, make_interval(secs => i) FROM generate_series(1, 30) i;
INSERT INTO "Media Store".assets ("fileName", tags) SELECT 'f' || i, ARRAY['raw', NULL] FROM generate_series(1, 30) i;
INSERT INTO surveys (title, questions) VALUES ('Mood', ARRAY['{"q": "how"}', '{"q": "why"}']::jsonb[]);
INSERT INTO survey_answers SELECT 1, ARRAY[[i, 1], [2, i]], B'10101010' FROM generate_series(1, 10) i;
INSERT INTO news (headline, published) VALUES ('Hi', '{[2024-01-01,2024-02-01),[2024-03-01,)}');
INSERT INTO feature_flags SELECT 'flag' || i, i % 2 = 0, i / 10.0 FROM generate_series(1, 10) i;
INSERT INTO legacy_counter SELECT 'c' || i % 3, 0 FROM generate_series(1, 9) i;
INSERT INTO mail_queue (recipient, subject) SELECT 'user' || i || '@tracker.example', 's' FROM generate_series(1, 50) i;
INSERT INTO webhooks (project_id, url) SELECT i, 'https://hook.example/' || i FROM generate_series(1, 5) i;
INSERT INTO cache_entries VALUES ('a', '\x00');
INSERT INTO schema_migrations SELECT '2023' || lpad(i::text, 10, '0') FROM generate_series(1, 30) i;
REFRESH MATERIALIZED VIEW project_activity;
ANALYZE;
