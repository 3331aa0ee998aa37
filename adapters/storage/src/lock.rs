//! One process to a file.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::OpenError;

/// Held as long as the file is in use. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, never read")] File);

impl Lock {
    /// Locks the database at `path`, and makes the file, for the owner's eyes alone, if there is none.
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        let create = |path: &Path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(path)
                .map_err(|source| OpenError::Create {
                    path: path.into(),
                    source,
                })
        };
        create(path)?;
        // Not the database itself: SQLite has locks of its own on that.
        let beside = path.with_extension("lock");
        let file = create(&beside)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.into() }),
            Err(TryLockError::Error(source)) => Err(OpenError::Create {
                path: beside,
                source,
            }),
        }
    }
}
