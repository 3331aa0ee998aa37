-- Lists also tell whose the members of a channel are: all are made anew at the next start.
DELETE FROM listed;
DELETE FROM list_spans;
DELETE FROM metadata_terms;
DELETE FROM list_backlog;
INSERT INTO list_backlog SELECT 'user', created_at, id FROM users;
INSERT INTO list_backlog SELECT 'group', created_at, id FROM groups;
INSERT INTO list_backlog SELECT 'thing', created_at, id FROM things;
INSERT INTO list_backlog SELECT 'channel', created_at, id FROM channels;
