-- Moments and spans in nanoseconds, protocols as numbers (rows.rs).
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,
    thing BLOB,
    client_id TEXT NOT NULL,
    protocol INTEGER NOT NULL,
    expiry INTEGER NOT NULL,
    -- NULL while it has a connection.
    ends INTEGER
) STRICT;

CREATE TABLE wills (
    session INTEGER PRIMARY KEY,
    packet BLOB NOT NULL,
    protocol INTEGER NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    delay INTEGER NOT NULL,
    -- NULL while the session has a connection.
    due INTEGER
) STRICT;

CREATE TABLE subscriptions (
    session INTEGER NOT NULL,
    filter TEXT NOT NULL,
    options INTEGER NOT NULL,
    identifier INTEGER,
    -- The order in which they were made.
    made INTEGER PRIMARY KEY,
    UNIQUE (session, filter)
) STRICT;

CREATE TABLE received (
    session INTEGER NOT NULL,
    packet INTEGER NOT NULL,
    PRIMARY KEY (session, packet)
) STRICT, WITHOUT ROWID;

CREATE TABLE messages (
    number INTEGER PRIMARY KEY,
    packet BLOB NOT NULL,
    protocol INTEGER NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    expires INTEGER
) STRICT;

CREATE TABLE deliveries (
    message INTEGER NOT NULL,
    session INTEGER NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    -- Of the packet for this session, as they are sent.
    properties BLOB NOT NULL,
    -- The filter of the shared subscription that it came by.
    shared TEXT,
    place INTEGER,
    -- The order in which deliveries of a session were; NULL if it is not.
    released INTEGER,
    PRIMARY KEY (message, session)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_of_sessions ON deliveries (session);

CREATE TABLE retained (
    topic TEXT PRIMARY KEY,
    packet BLOB NOT NULL,
    protocol INTEGER NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    expires INTEGER
) STRICT, WITHOUT ROWID;
