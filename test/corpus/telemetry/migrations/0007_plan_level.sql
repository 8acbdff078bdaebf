ALTER TYPE platform.plan_level ADD VALUE 'startup' BEFORE 'team';
INSERT INTO platform.plans (level, monthly) VALUES ('startup', 9);
INSERT INTO billing.rate VALUES ('startup', 'sample', 0.00001), ('free', 'sample', 0);
