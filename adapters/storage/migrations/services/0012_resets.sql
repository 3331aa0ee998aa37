-- Resets of passwords that were asked for. One is due until its mail is on its way; `token` is the hash of what is in
-- the mail. Those without a user were asked for by somebody who has none here.
CREATE TABLE resets (
    id BLOB PRIMARY KEY NOT NULL,
    user_id BLOB,
    host TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    due_at BIGINT,
    attempts BIGINT NOT NULL,
    token BLOB,
    expires_at BIGINT
);
CREATE INDEX resets_due ON resets (due_at);
CREATE INDEX resets_by_token ON resets (token);
CREATE INDEX resets_of_user ON resets (user_id);
CREATE INDEX resets_by_age ON resets (created_at);
