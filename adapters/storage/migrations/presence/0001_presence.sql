-- The journal of arrivals and departures.

-- One row.
CREATE TABLE journal (
    id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    producer BLOB NOT NULL,
    -- The name under which sessions were opened that are still on the roll.
    instance TEXT NOT NULL,
    -- When this instance was last known to be alive, in nanoseconds.
    alive_at BIGINT NOT NULL,
    relayed BIGINT NOT NULL,
    -- The roll as of the event at this position, and when that event was.
    roll_position BIGINT NOT NULL,
    roll_at BIGINT NOT NULL,
    roll BLOB NOT NULL
);

-- One row for each group of events that was committed together.
CREATE TABLE groups (
    -- Position of the first and the last event.
    first INTEGER PRIMARY KEY NOT NULL,
    last BIGINT NOT NULL,
    instance TEXT NOT NULL,
    events BLOB NOT NULL
);
