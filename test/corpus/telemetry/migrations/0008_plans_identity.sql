-- as: string
SET LOCAL ROLE telemetry_admin;
CREATE SEQUENCE platform.plan_id OWNED BY platform.plans.id;
SELECT setval('platform.plan_id', 5000);
ALTER TABLE platform.plans ALTER COLUMN id SET DEFAULT nextval('platform.plan_id'), ALTER COLUMN limits SET DEFAULT '{"hosts": 5}'::jsonb;
