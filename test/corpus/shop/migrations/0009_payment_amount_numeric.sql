ALTER TABLE sales.payment ALTER COLUMN amount TYPE numeric(14,2) USING amount::numeric;
ALTER TABLE sales.refund ALTER COLUMN amount TYPE numeric(14,2) USING amount::numeric(14,2);
