-- Lists of users, groups, things and channels: of all, of an owner, a name, a tag, a value of metadata, members of a
-- group. Each is of one kind and status and known by a hash of what it is of; an entity is in as many as it has to
-- do with. A page is a range of the index.
CREATE TABLE listed (
    list BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    entity BLOB NOT NULL,
    PRIMARY KEY (list, created_at, entity)
);
-- How many entries long lists have, span by span. A span reaches to the first moment of the next; the first span of a
-- list has all that is earlier. Short lists have none, and are counted when they are read.
CREATE TABLE list_spans (
    list BLOB NOT NULL,
    first_at BIGINT NOT NULL,
    entries BIGINT NOT NULL,
    PRIMARY KEY (list, first_at)
);
-- Who changes lists of a kind has its row until the end of the transaction.
CREATE TABLE list_turns (
    kind TEXT PRIMARY KEY NOT NULL,
    taken BIGINT NOT NULL
);
INSERT INTO list_turns (kind, taken) VALUES ('user', 0), ('group', 0), ('thing', 0), ('channel', 0);

-- What was made before is put into lists at the next start.
CREATE TABLE list_backlog (
    kind TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    entity BLOB NOT NULL,
    PRIMARY KEY (kind, created_at, entity)
);
INSERT INTO list_backlog SELECT 'user', created_at, id FROM users;
INSERT INTO list_backlog SELECT 'group', created_at, id FROM groups;
INSERT INTO list_backlog SELECT 'thing', created_at, id FROM things;
INSERT INTO list_backlog SELECT 'channel', created_at, id FROM channels;

-- Of metadata, terms are only what is in elements of lists that hold more than one value; lists have the rest.
DELETE FROM metadata_terms;
DROP TABLE metadata_backlog;
DROP TABLE things_to_tag;
DROP TABLE thing_tags;
DROP TABLE thing_counts;
DROP TABLE user_tags;
DROP INDEX things_by_age;
DROP INDEX things_of_owner;
DROP INDEX things_by_name;
DROP INDEX things_of_owner_by_name;
DROP INDEX channels_by_age;
DROP INDEX channels_of_owner;
DROP INDEX channels_of_parent;
DROP INDEX groups_by_age;
DROP INDEX groups_of_owner;
DROP INDEX groups_of_parent;
DROP INDEX users_of_owner;
DROP INDEX users_by_name;
