-- Owners of things may live in another database. Indexes are those of lists in the order of making: everybody's or an
-- owner's, of one status, perhaps of one name.
CREATE TABLE new_things (
    id BLOB PRIMARY KEY NOT NULL,
    owner BLOB NOT NULL,
    name TEXT NOT NULL,
    tags TEXT NOT NULL,
    identity TEXT NOT NULL,
    metadata TEXT NOT NULL,
    key_hash BLOB NOT NULL UNIQUE,
    sealed_key BLOB,
    enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    updated_by BLOB
);
INSERT INTO new_things
    (id, owner, name, tags, identity, metadata, key_hash, sealed_key, enabled, created_at, updated_at, updated_by)
SELECT id, owner, name, tags, '', metadata, key_hash, sealed_key, enabled, created_at, updated_at, updated_by
FROM things;
DROP TABLE things;
ALTER TABLE new_things RENAME TO things;
CREATE INDEX things_by_age ON things (enabled, created_at, id);
CREATE INDEX things_of_owner ON things (owner, enabled, created_at, id);
CREATE INDEX things_by_name ON things (name, enabled, created_at, id);
CREATE INDEX things_of_owner_by_name ON things (owner, name, enabled, created_at, id);

-- How many things of a status an owner has: to count them anew for every list takes longer than the list.
CREATE TABLE thing_counts (
    owner BLOB NOT NULL,
    enabled BIGINT NOT NULL,
    things BIGINT NOT NULL,
    PRIMARY KEY (owner, enabled)
);
INSERT INTO thing_counts (owner, enabled, things)
SELECT owner, enabled, COUNT(*) FROM things GROUP BY owner, enabled;
