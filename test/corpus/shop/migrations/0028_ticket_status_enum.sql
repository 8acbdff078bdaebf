-- as: string
CREATE TYPE crm.ticket_status AS ENUM ('open', 'waiting', 'closed');
DROP POLICY support_open ON crm.support_ticket;
ALTER TABLE crm.support_ticket ALTER COLUMN status DROP DEFAULT;
ALTER TABLE crm.support_ticket ALTER COLUMN status TYPE crm.ticket_status USING status::crm.ticket_status;
ALTER TABLE crm.support_ticket ALTER COLUMN status SET DEFAULT 'open';
CREATE POLICY support_open ON crm.support_ticket TO "Shop Support" USING (status <> 'closed') WITH CHECK (true);
