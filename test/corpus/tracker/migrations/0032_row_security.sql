ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY "everybody reads" ON notes FOR SELECT USING (true);
CREATE POLICY "bot writes" ON notes FOR INSERT TO "Tracker-Bot" WITH CHECK (body LIKE 'beep%');
CREATE POLICY owner_all ON notes TO tracker USING (true) WITH CHECK (subject_type IN ('issue', 'page'));
DROP POLICY "bot writes" ON notes;
ALTER TABLE notes NO FORCE ROW LEVEL SECURITY;
