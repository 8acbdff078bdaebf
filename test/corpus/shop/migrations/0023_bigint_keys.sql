-- as: transaction
DROP TRIGGER count_review ON catalog.review;
ALTER TABLE catalog.review ALTER COLUMN stars TYPE smallint;
CREATE TRIGGER count_review AFTER INSERT OR UPDATE OF stars OR DELETE ON catalog.review FOR EACH ROW EXECUTE FUNCTION catalog.count_review();
ALTER TABLE warehouse.purchase_order ALTER COLUMN id TYPE bigint;
ALTER TABLE warehouse.purchase_order_line ALTER COLUMN purchase_order_id TYPE bigint, ALTER COLUMN quantity TYPE numeric(10,3) USING quantity * 1.0;
ALTER SEQUENCE warehouse.purchase_order_id_seq AS bigint;
