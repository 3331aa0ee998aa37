-- Channels become like groups, and their owners may live in another database. An owner's channels have names of their
-- own from now on; those that repeat an earlier one's, or have none, stay as they are until they are given another.
CREATE TABLE new_channels (
    id BLOB PRIMARY KEY NOT NULL,
    owner BLOB NOT NULL,
    parent BLOB,
    path BLOB NOT NULL,
    name TEXT NOT NULL,
    repeated BIGINT NOT NULL DEFAULT 0,
    description TEXT NOT NULL,
    metadata TEXT NOT NULL,
    enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    updated_by BLOB
);
INSERT INTO new_channels
    (id, owner, path, name, repeated, description, metadata, enabled, created_at, updated_at, updated_by)
SELECT id, owner, id, name,
    CASE WHEN name = '' OR ROW_NUMBER() OVER (PARTITION BY owner, name ORDER BY created_at, id) > 1
        THEN 1 ELSE 0 END,
    '', metadata, enabled, created_at, updated_at, updated_by
FROM channels;
DROP TABLE channels;
ALTER TABLE new_channels RENAME TO channels;
CREATE UNIQUE INDEX channels_by_name ON channels (owner, name) WHERE repeated = 0;
CREATE INDEX channels_of_owner ON channels (owner, created_at, id);
CREATE INDEX channels_by_age ON channels (created_at, id);
CREATE INDEX channels_by_path ON channels (path);
CREATE INDEX channels_of_parent ON channels (parent);
