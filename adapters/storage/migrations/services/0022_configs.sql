-- Configurations of the bootstrap service. What is secret is sealed for its place in its row; keys are found by keyed
-- hashes. A thing has one at most. Things and channels are those of a things service that may be elsewhere.
CREATE TABLE configs (
    thing BLOB PRIMARY KEY NOT NULL,
    owner BLOB NOT NULL,
    external_id TEXT NOT NULL,
    external_key_hash BLOB NOT NULL,
    external_key BLOB,
    thing_key_hash BLOB,
    thing_key BLOB,
    name TEXT NOT NULL,
    -- In small letters, to be searched.
    small_name TEXT NOT NULL,
    content BLOB NOT NULL,
    client_cert TEXT NOT NULL,
    client_key BLOB NOT NULL,
    ca_cert TEXT NOT NULL,
    -- 0 inactive, 1 active.
    state BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Counts changes.
    revision BIGINT NOT NULL
);
CREATE UNIQUE INDEX configs_by_external_id ON configs (external_id);
CREATE INDEX configs_by_thing_key ON configs (thing_key_hash);
CREATE INDEX configs_of_owner ON configs (owner, created_at, thing);
CREATE INDEX configs_by_age ON configs (created_at, thing);
-- Copies of channels, one for all configurations that have the channel.
CREATE TABLE config_channels (
    id BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    metadata TEXT NOT NULL,
    -- When the channel was changed last.
    as_of BIGINT NOT NULL
);
CREATE TABLE config_connections (
    thing BLOB NOT NULL REFERENCES configs (thing) ON DELETE CASCADE,
    channel BLOB NOT NULL REFERENCES config_channels (id),
    -- Since when it is as it is: what happened to it earlier, and is heard later, is outdated.
    since BIGINT NOT NULL,
    PRIMARY KEY (thing, channel)
);
CREATE INDEX config_connections_of_channel ON config_connections (channel);
