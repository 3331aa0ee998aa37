//! One process to a file.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::OpenError;

/// Held as long as the file is in use. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Names the file among all files of all machines, until this one starts anew. A copy is another file.
    pub(crate) fn place(&self) -> std::io::Result<String> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let file = self.0.metadata()?;
        Ok(format!("{}:{}:{}", boot.trim(), file.dev(), file.ino()))
    }

    /// Locks the database at `path`, and makes the file, for the owner's eyes alone, if there is none.
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        let create = |path: &Path| {
            let failed = |source| OpenError::Create {
                path: path.into(),
                source,
            };
            let mut options = OpenOptions::new();
            options.create(true).append(true).mode(0o600);
            let file = options.open(path).map_err(failed)?;
            // A copy that was put back may be open to others.
            let closed = file.set_permissions(Permissions::from_mode(0o600));
            closed.map(|()| file).map_err(failed)
        };
        create(path)?;
        for of_sqlite in ["-wal", "-shm"] {
            let mut beside = path.as_os_str().to_owned();
            beside.push(of_sqlite);
            let beside = Path::new(&beside);
            if beside.exists() {
                create(beside)?;
            }
        }
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
