ALTER TABLE crm.newsletter_subscription SET LOGGED;
CREATE INDEX newsletter_topics_idx ON crm.newsletter_subscription USING gin (topics);
UPDATE crm.newsletter_subscription SET topics = topics || '{spring}'::text[], confirmed_at = now() WHERE email LIKE 'reader1%';
