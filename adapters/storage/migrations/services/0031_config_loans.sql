-- By what the key of the thing may be asked for in a things service, sealed.
ALTER TABLE configs ADD COLUMN loan BLOB;
