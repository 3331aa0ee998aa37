-- Users, things, channels, what things may do on channels, and the events of these services.
-- Ids are 16 bytes, moments are nanoseconds since the Unix epoch, lists and metadata are JSON.

CREATE TABLE users (
    id BLOB PRIMARY KEY NOT NULL,
    identity TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    password TEXT NOT NULL,
    enabled BIGINT NOT NULL,
    admin BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE things (
    id BLOB PRIMARY KEY NOT NULL,
    owner BLOB NOT NULL REFERENCES users (id),
    name TEXT NOT NULL,
    tags TEXT NOT NULL,
    metadata TEXT NOT NULL,
    -- A keyed hash: the key itself is not kept.
    key_hash BLOB NOT NULL UNIQUE,
    enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    updated_by BLOB
);
CREATE INDEX things_of_owner ON things (owner, created_at, id);

CREATE TABLE channels (
    id BLOB PRIMARY KEY NOT NULL,
    owner BLOB NOT NULL REFERENCES users (id),
    name TEXT NOT NULL,
    metadata TEXT NOT NULL,
    enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    updated_by BLOB
);
CREATE INDEX channels_of_owner ON channels (owner, created_at, id);

CREATE TABLE grants (
    thing BLOB NOT NULL REFERENCES things (id),
    channel BLOB NOT NULL REFERENCES channels (id),
    can_read BIGINT NOT NULL,
    can_write BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (thing, channel)
);

-- One row for each stream.
CREATE TABLE logs (
    stream TEXT PRIMARY KEY NOT NULL,
    producer BLOB NOT NULL,
    last BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    relayed BIGINT NOT NULL
);

CREATE TABLE events (
    stream TEXT NOT NULL,
    position BIGINT NOT NULL,
    fields TEXT NOT NULL,
    PRIMARY KEY (stream, position)
);
