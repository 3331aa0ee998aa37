-- What users may do on groups: actions are bits. Subjects are always users here; the table is like that of things.
-- Vouched for are subjects that whoever made the policy had a say over.
CREATE TABLE user_policies (
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
CREATE INDEX user_policies_on ON user_policies (object, subject);
CREATE INDEX user_policies_of ON user_policies (owner, created_at, subject);
CREATE INDEX user_policies_by_age ON user_policies (created_at, subject);
