//! Embedded storage: the journal and the services data.
