ALTER TABLE surveys SET SCHEMA wiki;
ALTER TABLE survey_answers SET SCHEMA wiki;
ALTER TYPE time_slot SET SCHEMA wiki;
ALTER FUNCTION number_issue() RENAME TO give_number;
ALTER TABLE wiki.survey_answers ADD COLUMN id int GENERATED ALWAYS AS IDENTITY;
ALTER TABLE wiki.survey_answers ADD PRIMARY KEY (id);
