-- A copy of the key, encrypted, so that its owner can be shown it. Of keys that were made before, none is kept.
ALTER TABLE things ADD COLUMN sealed_key BLOB;
