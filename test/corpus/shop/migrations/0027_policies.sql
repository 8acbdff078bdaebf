ALTER POLICY support_open ON crm.support_ticket USING (status NOT IN ('secret', 'legal'));
ALTER POLICY app_all ON crm.support_ticket RENAME TO app_everything;
CREATE POLICY readonly_recent ON crm.support_ticket AS RESTRICTIVE FOR SELECT TO shop_readonly USING (opened_at > '2020-01-01');
ALTER TABLE crm.support_ticket FORCE ROW LEVEL SECURITY;
