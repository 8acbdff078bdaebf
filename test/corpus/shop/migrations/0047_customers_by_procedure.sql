CREATE PROCEDURE crm.anonymise(batch int) LANGUAGE plpgsql AS $$
BEGIN
    UPDATE crm.customer SET phone = NULL WHERE id <= batch;
    COMMIT;
    ALTER TABLE crm.customer DROP COLUMN birthday;
    COMMIT;
    UPDATE crm.customer SET blocked = false WHERE id > batch AND blocked;
END
$$;
CALL crm.anonymise(100);
