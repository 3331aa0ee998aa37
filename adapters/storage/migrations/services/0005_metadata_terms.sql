-- What can be searched for in metadata: a row for each value, at all depths.
CREATE TABLE metadata_terms (
    -- What it is the metadata of, and its id.
    kind TEXT NOT NULL,
    entity BLOB NOT NULL,
    -- The names of entries on the way to the value; [] is an element of a list.
    path TEXT NOT NULL,
    -- As JSON; {} for any object, [] for any list.
    value TEXT NOT NULL,
    -- Which elements of lists are on the way: 2.0. is in the first element of the third.
    place TEXT NOT NULL
);
CREATE INDEX metadata_terms_by_value ON metadata_terms (kind, path, value, entity, place);
CREATE INDEX metadata_terms_of_entity ON metadata_terms (entity, kind, path, value, place);

-- What has metadata of before, and no terms yet: made at the start.
CREATE TABLE metadata_backlog (
    kind TEXT NOT NULL,
    entity BLOB NOT NULL,
    metadata TEXT NOT NULL,
    PRIMARY KEY (kind, entity)
);
INSERT INTO metadata_backlog SELECT 'thing', id, metadata FROM things WHERE metadata <> '{}';
INSERT INTO metadata_backlog SELECT 'channel', id, metadata FROM channels WHERE metadata <> '{}';
