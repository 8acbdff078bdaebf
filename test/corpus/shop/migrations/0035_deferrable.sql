ALTER TABLE accounting.journal_line ALTER CONSTRAINT journal_line_entry_id_fkey DEFERRABLE INITIALLY IMMEDIATE;
ALTER TABLE accounting.journal_line RENAME CONSTRAINT journal_line_amount_check TO amount_positive;
ALTER TABLE catalog.price DROP CONSTRAINT price_valid_excl;
ALTER TABLE catalog.price ADD CONSTRAINT price_no_overlap EXCLUDE USING gist (price_list_id WITH =, variant_id WITH =, valid WITH &&) DEFERRABLE;
