-- By what a service may ask for the key of a thing, as its owner has allowed: a keyed hash.
ALTER TABLE things ADD COLUMN key_loan BLOB;
