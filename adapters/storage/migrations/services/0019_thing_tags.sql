-- Tags, to find things by: things.tags has them in their order.
CREATE TABLE thing_tags (
    tag TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    thing BLOB NOT NULL,
    PRIMARY KEY (tag, created_at, thing)
);
CREATE INDEX thing_tags_of_thing ON thing_tags (thing);
-- Things that were made before, whose tags are to be added at the next start.
CREATE TABLE things_to_tag (thing BLOB PRIMARY KEY NOT NULL);
INSERT INTO things_to_tag (thing) SELECT id FROM things WHERE tags <> '[]';
