//! The HTTP edge: health, metrics, presence.
