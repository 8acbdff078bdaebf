DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM information_schema.columns WHERE table_name = 'users' AND column_name = 'locale') THEN
        ALTER TABLE users ADD COLUMN locale varchar(10) DEFAULT 'en';
        ALTER TABLE users ADD COLUMN time_zone text;
        UPDATE users SET time_zone = 'Europe/Berlin' WHERE login < 'login5';
    END IF;
END
$do$;
