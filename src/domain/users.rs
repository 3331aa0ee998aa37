//! Users: who owns things and channels, and how they prove themselves.
