-- as: string
ALTER TABLE projects ADD COLUMN visibility text NOT NULL DEFAULT 'private' CHECK (visibility IN ('private', 'internal', 'public')), ADD COLUMN created_at timestamptz DEFAULT now(), ADD COLUMN opened date DEFAULT CURRENT_DATE;
ALTER TABLE labels ADD COLUMN description text DEFAULT $d$it's; a "label"$d$;
