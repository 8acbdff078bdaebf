CREATE VIEW accounting.posting AS SELECT e.id, e.booked_on, l.account, l.side, l.amount FROM accounting.journal_entry e JOIN accounting.journal_line l ON l.entry_id = e.id;
CREATE RULE posting_is_final AS ON DELETE TO accounting.posting DO INSTEAD NOTHING;
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE OF name, net_price ON catalog.product FOR EACH ROW EXECUTE FUNCTION catalog.touch();
ALTER TABLE accounting.account DISABLE TRIGGER zz_audit;
ALTER TRIGGER count_review ON catalog.review RENAME TO a_count_review;
CREATE FUNCTION sales.count_refs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM count(*) FROM changed; RETURN NULL; END';
CREATE TRIGGER stmt AFTER UPDATE ON sales.cart_item REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION sales.count_refs();
