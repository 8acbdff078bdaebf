ALTER TABLE sales.session_cache SET LOGGED;
INSERT INTO sales.session_cache VALUES ('b', '[1]', '2030-01-01');
ALTER TABLE crm.newsletter_subscription SET UNLOGGED;
