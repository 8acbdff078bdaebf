ALTER TABLE issues ADD COLUMN public_id uuid DEFAULT gen_random_uuid();
ALTER TABLE issues ALTER COLUMN public_id SET NOT NULL;
CREATE UNIQUE INDEX CONCURRENTLY issues_public_id ON issues (public_id);
