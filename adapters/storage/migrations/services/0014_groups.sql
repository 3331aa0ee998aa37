-- Groups of users. The path has the ids from the root of the tree down to the group itself, so that what is below
-- a group is a range of paths. A group never moves.
CREATE TABLE groups (
    id BLOB PRIMARY KEY NOT NULL,
    owner BLOB NOT NULL,
    parent BLOB,
    path BLOB NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    metadata TEXT NOT NULL,
    enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    updated_by BLOB
);
CREATE UNIQUE INDEX groups_by_name ON groups (owner, name);
CREATE INDEX groups_of_owner ON groups (owner, created_at, id);
CREATE INDEX groups_by_age ON groups (created_at, id);
CREATE INDEX groups_by_path ON groups (path);
CREATE INDEX groups_of_parent ON groups (parent);
