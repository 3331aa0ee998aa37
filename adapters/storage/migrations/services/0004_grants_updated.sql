-- When what a thing may do on a channel was changed last.
ALTER TABLE grants ADD COLUMN updated_at BIGINT;
