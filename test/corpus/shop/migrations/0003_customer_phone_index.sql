CREATE INDEX CONCURRENTLY customer_phone_idx ON crm.customer (phone) WHERE phone IS NOT NULL;
