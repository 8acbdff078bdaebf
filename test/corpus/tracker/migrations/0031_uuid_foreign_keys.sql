-- as: transaction
ALTER TABLE attachments ADD COLUMN issue_public_id uuid;
UPDATE attachments a SET issue_public_id = i.public_id FROM issues i WHERE i.id = a.record_id AND a.record_type = 'Issue';
ALTER TABLE attachments ADD CONSTRAINT attachments_issue_fk FOREIGN KEY (issue_public_id) REFERENCES issues (public_id) ON DELETE SET NULL NOT VALID;
ALTER TABLE attachments VALIDATE CONSTRAINT attachments_issue_fk;
