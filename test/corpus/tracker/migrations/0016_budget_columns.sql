BEGIN;
ALTER TABLE projects ADD COLUMN budget_amount numeric(12,2), ADD COLUMN budget_currency char(3);
UPDATE projects SET budget_amount = (budget).amount, budget_currency = (budget).currency;
ALTER TABLE projects DROP COLUMN budget;
DROP TYPE money_amount;
COMMIT;
