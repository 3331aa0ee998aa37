//! Which parts of rollcall a process is.

use std::path::{Path, PathBuf};

use crate::config::Config;

/// The whole, or one part alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    All,
    Mqtt,
    Users,
    Things,
    Bootstrap,
}

/// The data folder belongs to processes of another kind.
#[derive(Debug, thiserror::Error)]
#[error(
    "{found} is in the data folder, and {wanted} is not: to go on with that data, copy the file to that name while nobody \
     uses it; else name another folder with --data"
)]
pub(crate) struct OthersFolder {
    found: &'static str,
    wanted: &'static str,
}

const WHOLE: &str = "rollcall.db";

impl Role {
    /// As commands name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "up",
            Self::Mqtt => "mqtt",
            Self::Users => "users",
            Self::Things => "things",
            Self::Bootstrap => "bootstrap",
        }
    }

    pub(crate) fn has(self, part: Self) -> bool {
        self == Self::All || self == part
    }

    /// What a part that is not here would listen on.
    pub(crate) fn leave_out_others(self, config: &mut Config) {
        for (part, address) in [
            (Self::Users, &mut config.http.users),
            (Self::Things, &mut config.http.things),
            (Self::Bootstrap, &mut config.http.bootstrap),
        ] {
            if !self.has(part) {
                *address = None;
            }
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::All => WHOLE,
            Self::Mqtt => "mqtt.db",
            Self::Users => "users.db",
            Self::Things => "things.db",
            Self::Bootstrap => "bootstrap.db",
        }
    }

    /// The database of services in `data`. Parts that run alone have a file each, so several may share a folder.
    ///
    /// # Errors
    /// The folder has been used by the whole and is to be used by a part, or the other way round: that would begin
    /// anew, without a word, beside data that is there.
    pub(crate) fn database(self, data: &Path) -> Result<PathBuf, OthersFolder> {
        const SERVICES: [Role; 3] = [Role::Users, Role::Things, Role::Bootstrap];
        let (wanted, path) = (self.file(), data.join(self.file()));
        if path.exists() || self == Self::Mqtt {
            return Ok(path);
        }
        let others = match self {
            Self::All => SERVICES.map(Self::file).to_vec(),
            _ => vec![WHOLE],
        };
        match others.into_iter().find(|other| data.join(other).exists()) {
            Some(found) => Err(OthersFolder { found, wanted }),
            None => Ok(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_share_a_folder_but_never_with_the_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let make = |role: Role| {
            let path = role.database(folder.path()).expect("its own");
            std::fs::write(path, "").expect("written");
        };
        make(Role::Mqtt);
        make(Role::Users);
        make(Role::Things);
        let refused = Role::All.database(folder.path()).expect_err("parts");
        assert!(refused.to_string().contains("users.db"), "{refused}");
        assert!(refused.to_string().contains("rollcall.db"), "{refused}");

        let folder = tempfile::tempdir().expect("folder");
        let make = |role: Role| {
            let path = role.database(folder.path()).expect("its own");
            std::fs::write(path, "").expect("written");
        };
        make(Role::All);
        for part in [Role::Users, Role::Things, Role::Bootstrap] {
            assert!(part.database(folder.path()).is_err(), "{part:?}");
        }
        make(Role::All);
        // It keeps nothing that another would miss.
        make(Role::Mqtt);
    }
}
