-- as: string
ALTER TYPE issue_state ADD VALUE 'blocked' BEFORE 'closed';
