BEGIN;
CREATE TABLE accounting.bank_transaction_new (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    statement_id int REFERENCES accounting.bank_statement,
    amount numeric(14,2) NOT NULL,
    purpose text,
    matched boolean NOT NULL DEFAULT false
);
INSERT INTO accounting.bank_transaction_new (statement_id, amount, purpose, matched) SELECT statement_id, amount::numeric, purpose, coalesce(matched, false) FROM accounting.bank_transaction;
ALTER TABLE accounting.bank_transaction RENAME TO bank_transaction_old;
ALTER TABLE accounting.bank_transaction_new RENAME TO bank_transaction;
ALTER SEQUENCE accounting.bank_transaction_new_id_seq RENAME TO bank_transaction_id_seq;
ALTER INDEX accounting.bank_transaction_new_pkey RENAME TO bank_transaction_pkey;
DROP TABLE accounting.bank_transaction_old;
COMMIT;
