-- Entries of streams of others that could not be understood, to be looked at by people.
CREATE TABLE set_aside (
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    reason TEXT NOT NULL,
    fields TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (source, id)
);
CREATE INDEX set_aside_by_age ON set_aside (at);
