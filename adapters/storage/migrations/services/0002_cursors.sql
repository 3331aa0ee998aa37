-- How far streams of others were read: the id of the last entry that was dealt with.
CREATE TABLE cursors (
    stream TEXT PRIMARY KEY NOT NULL,
    id TEXT NOT NULL
);
