-- A sign-in, while its tokens may be good. `refresh` is the id of the one refresh token that is.
CREATE TABLE logins (
    id BLOB PRIMARY KEY NOT NULL,
    user_id BLOB NOT NULL,
    refresh BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX logins_of_user ON logins (user_id, created_at);
CREATE INDEX logins_by_end ON logins (expires_at);
