//! The Redis edge: the relay from journal to streams.
