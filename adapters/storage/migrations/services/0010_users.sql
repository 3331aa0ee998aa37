-- What else there is to know of users.
ALTER TABLE users ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE users ADD COLUMN owner BLOB;
ALTER TABLE users ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE users ADD COLUMN updated_at BIGINT;
ALTER TABLE users ADD COLUMN updated_by BLOB;
CREATE INDEX users_by_age ON users (created_at, id);
CREATE INDEX users_of_owner ON users (owner, created_at, id);
CREATE INDEX users_by_name ON users (name);

-- Who has which tag: what `tags` has, the other way round.
CREATE TABLE user_tags (
    tag TEXT NOT NULL,
    user_id BLOB NOT NULL,
    PRIMARY KEY (tag, user_id)
);
CREATE INDEX user_tags_of ON user_tags (user_id);
