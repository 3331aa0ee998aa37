-- What things, and users, may do on channels: so far that was in grants. They belong to the owner of the channel.
CREATE TABLE thing_policies (
    subject BLOB NOT NULL,
    is_user BIGINT NOT NULL,
    object BLOB NOT NULL,
    actions BIGINT NOT NULL,
    owner BLOB NOT NULL,
    vouched BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    updated_by BLOB,
    PRIMARY KEY (subject, is_user, object)
);
INSERT INTO thing_policies
    (subject, is_user, object, actions, owner, vouched, created_at, updated_at, updated_by)
SELECT grants.thing, 0, grants.channel, grants.can_write * 256 + grants.can_read * 512, channels.owner, 1,
    grants.created_at, grants.updated_at, CASE WHEN grants.updated_at IS NULL THEN NULL ELSE channels.owner END
FROM grants JOIN channels ON channels.id = grants.channel;
DROP TABLE grants;
CREATE INDEX thing_policies_on ON thing_policies (object, subject);
CREATE INDEX thing_policies_of ON thing_policies (owner, created_at, subject);
CREATE INDEX thing_policies_by_age ON thing_policies (created_at, subject);
