//! Secrets in files that only their owner can read. They are made at the first start: there is no default.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rollcall_domain::bootstrap::DeviceCipher;
use rollcall_domain::identity::{KeyHasher, Secret};
use rollcall_domain::vault::Vault;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot {doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0} does not hold what it should: restore it from a backup")]
    Damaged(PathBuf),
}

/// The folder of secrets within a data folder.
pub struct Secrets {
    folder: PathBuf,
}

impl Secrets {
    /// Makes the data folder and the one of secrets if need be, and sees to it that nobody else looks into
    /// the latter: a copy that was put back may have lost its modes.
    ///
    /// # Errors
    /// A folder cannot be made, or closed to others.
    pub fn open(data: &Path) -> Result<Self, SecretError> {
        let folder = data.join("secrets");
        let failed = |doing| {
            let path = folder.clone();
            move |source| SecretError::File {
                doing,
                path,
                source,
            }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(failed("make the folder"))?;
        close(&folder).map_err(failed("close to others"))?;
        // That one may be shared on purpose, or be somebody's home.
        if fs::metadata(data).is_ok_and(|it| it.mode() & 0o077 != 0) {
            tracing::warn!(folder = %data.display(), "others may look into the data folder");
        }
        Ok(Self { folder })
    }

    /// What turns keys of things into what is kept of them. Without it no thing can be recognized.
    ///
    /// # Errors
    /// The file cannot be read or made, or is damaged.
    pub fn key_hasher(&self) -> Result<KeyHasher, SecretError> {
        let key = self.read_or_make("things.key", || rand::random::<[u8; 32]>().to_vec())?;
        let path = self.folder.join("things.key");
        let key: [u8; 32] = key.try_into().map_err(|_| SecretError::Damaged(path))?;
        Ok(KeyHasher::new(&key))
    }

    /// What seals copies of the keys of things. The file has a key of 32 bytes or several: the first seals, the
    /// others open what they have sealed before.
    ///
    /// # Errors
    /// The file cannot be read or made, or is damaged.
    pub fn vault(&self) -> Result<Vault, SecretError> {
        let bytes = self.read_or_make(VAULT, || rand::random::<[u8; 32]>().to_vec())?;
        let (keys, rest) = bytes.as_chunks::<32>();
        let vault = Vault::new(keys).filter(|_| rest.is_empty());
        vault.ok_or_else(|| SecretError::Damaged(self.folder.join(VAULT)))
    }

    /// What devices that ask without TLS are answered with: the key in `file`, or if that names none, in the folder.
    /// It is text, so that it can be typed where devices are made.
    ///
    /// # Errors
    /// The file cannot be read or made, or has not 16, 24 or 32 bytes.
    pub fn device_cipher(&self, file: &Path) -> Result<DeviceCipher, SecretError> {
        let (path, key) = match file.as_os_str().is_empty() {
            true => {
                let make = || Secret::generate().expose().as_bytes()[..32].to_vec();
                let key = self.read_or_make(DEVICES, make)?;
                (self.folder.join(DEVICES), key)
            }
            false => {
                let failed = |source| SecretError::File {
                    doing: "read",
                    path: file.into(),
                    source,
                };
                (file.to_owned(), fs::read(file).map_err(failed)?)
            }
        };
        device_cipher(&key).ok_or(SecretError::Damaged(path))
    }

    /// The token of the command line.
    ///
    /// # Errors
    /// The file cannot be read or made, or is damaged.
    pub fn admin_token(&self) -> Result<Secret, SecretError> {
        let make = || Secret::generate().expose().as_bytes().to_vec();
        read_token(&self.folder.join(TOKEN), self.read_or_make(TOKEN, make)?)
    }

    /// What tokens of users are signed with. Whoever has it can make any.
    ///
    /// # Errors
    /// The file cannot be read or made, or is damaged.
    pub fn token_key(&self) -> Result<Secret, SecretError> {
        // Both of 256 bits: as many as the signature has.
        let make = || {
            let halves = [Secret::generate(), Secret::generate()];
            halves.map(|it| it.expose().to_owned()).concat().into()
        };
        let key = self.read_or_make(TOKEN_KEY, make)?;
        read_token(&self.folder.join(TOKEN_KEY), key)
    }

    /// What the demo made, if it was run before.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn demo(&self) -> Result<Option<Vec<u8>>, SecretError> {
        read(&self.folder.join(DEMO))
    }

    /// # Errors
    /// The file cannot be written.
    pub fn keep_demo(&self, content: &[u8]) -> Result<(), SecretError> {
        write(&self.folder.join(DEMO), content)
    }

    fn read_or_make(
        &self,
        name: &str,
        make: impl FnOnce() -> Vec<u8>,
    ) -> Result<Vec<u8>, SecretError> {
        let path = self.folder.join(name);
        if let Some(content) = read(&path)? {
            return Ok(content);
        }
        let content = make();
        match make_new(&path, &content)? {
            true => Ok(content),
            // Another process on this folder was faster.
            false => read(&path)?.ok_or(SecretError::Damaged(path)),
        }
    }
}

const TOKEN: &str = "admin.token";
const TOKEN_KEY: &str = "tokens.key";
const DEVICES: &str = "bootstrap.key";
const VAULT: &str = "vault.key";
const DEMO: &str = "demo.json";

/// Where the token is within a data folder.
#[must_use]
pub fn token_path(data: &Path) -> PathBuf {
    data.join("secrets").join(TOKEN)
}

/// The key in a file: text of 32 bytes or more.
///
/// # Errors
/// The file cannot be read, or holds less.
pub fn key_from(path: &Path) -> Result<Secret, SecretError> {
    token_from(path)
}

/// The token in a file.
///
/// # Errors
/// The file cannot be read.
pub fn token_from(path: &Path) -> Result<Secret, SecretError> {
    let content = fs::read(path).map_err(|source| SecretError::File {
        doing: "read the token from",
        path: path.into(),
        source,
    })?;
    read_token(path, content)
}

/// The key of devices in a file; editors put an end of line behind it.
#[must_use]
pub fn device_cipher(content: &[u8]) -> Option<DeviceCipher> {
    let trimmed = content.strip_suffix(b"\n").and_then(DeviceCipher::new);
    DeviceCipher::new(content).or(trimmed)
}

fn read_token(path: &Path, content: Vec<u8>) -> Result<Secret, SecretError> {
    let text = String::from_utf8(content).map_err(|_| SecretError::Damaged(path.into()))?;
    let text = text.trim();
    if text.len() < 32 || !text.is_ascii() {
        return Err(SecretError::Damaged(path.into()));
    }
    Ok(Secret::new(text))
}

/// Takes from others what they may do with a folder and the files in it.
fn close(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.metadata()?.is_file() {
            fs::set_permissions(entry.path(), Permissions::from_mode(0o600))?;
        }
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, SecretError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SecretError::File {
            doing: "read",
            path: path.into(),
            source,
        }),
    }
}

/// Writes beside and renames: a crash leaves the whole file or none.
fn write(path: &Path, content: &[u8]) -> Result<(), SecretError> {
    let beside = beside(path);
    let written = write_all(&beside, content).and_then(|()| fs::rename(&beside, path));
    written.map_err(|source| SecretError::File {
        doing: "write",
        path: path.into(),
        source,
    })
}

/// Makes the file, the whole or not at all; `false` if there is one.
fn make_new(path: &Path, content: &[u8]) -> Result<bool, SecretError> {
    let beside = beside(path);
    let made = write_all(&beside, content).and_then(|()| {
        let linked = fs::hard_link(&beside, path);
        fs::remove_file(&beside)?;
        linked
    });
    match made {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(SecretError::File {
            doing: "make",
            path: path.into(),
            source,
        }),
    }
}

/// A name that no other process uses at the same time.
fn beside(path: &Path) -> PathBuf {
    path.with_extension(format!("new.{}", std::process::id()))
}

fn write_all(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_the_same_and_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let secrets = Secrets::open(folder.path()).expect("folder");
        let token = secrets.admin_token().expect("token");
        let hash = secrets.key_hasher().expect("hasher").hash("key");
        let again = Secrets::open(folder.path()).expect("folder");
        assert!(again.admin_token().expect("token").matches(token.expose()));
        assert!(again.key_hasher().expect("hasher").hash("key") == hash);
        assert!(
            token_from(&token_path(folder.path()))
                .expect("token")
                .matches(token.expose())
        );
        let mode = |path: &Path| fs::metadata(path).expect("file").permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("secrets")), 0o700);
        secrets.vault().expect("made");
        secrets.token_key().expect("made");
        for name in ["admin.token", "tokens.key", "things.key", "vault.key"] {
            assert_eq!(mode(&folder.path().join("secrets").join(name)), 0o600);
        }

        let others = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
        };
        others(&folder.path().join("secrets"), 0o755);
        others(&folder.path().join("secrets/things.key"), 0o644);
        Secrets::open(folder.path()).expect("folder");
        assert_eq!(mode(&folder.path().join("secrets")), 0o700);
        assert_eq!(mode(&folder.path().join("secrets/things.key")), 0o600);
    }

    #[test]
    fn who_comes_second_takes_the_secret_of_the_first() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("secret");
        assert!(make_new(&path, b"first").expect("made"));
        assert!(!make_new(&path, b"second").expect("there is one"));
        assert_eq!(fs::read(&path).expect("a file"), b"first");
        write(&path, b"third").expect("written");
        assert_eq!(fs::read(&path).expect("a file"), b"third");
        let files = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(files, 1, "nothing is left beside it");
    }

    #[test]
    fn a_cut_off_secret_is_not_taken_for_one() {
        let folder = tempfile::tempdir().expect("folder");
        let secrets = Secrets::open(folder.path()).expect("folder");
        for name in [
            "admin.token",
            "tokens.key",
            "things.key",
            "vault.key",
            "bootstrap.key",
        ] {
            fs::write(folder.path().join("secrets").join(name), "short").expect("file");
        }
        assert!(matches!(
            secrets.admin_token(),
            Err(SecretError::Damaged(_))
        ));
        assert!(matches!(secrets.token_key(), Err(SecretError::Damaged(_))));
        assert!(matches!(secrets.key_hasher(), Err(SecretError::Damaged(_))));
        assert!(matches!(secrets.vault(), Err(SecretError::Damaged(_))));
        let none = Path::new("");
        let cipher = secrets.device_cipher(none);
        assert!(matches!(cipher, Err(SecretError::Damaged(_))));
        let file = folder.path().join("device.key");
        for (content, sound) in [
            ("0123456789abcdef", true),
            ("0123456789abcdef\n", true),
            ("short", false),
        ] {
            fs::write(&file, content).expect("file");
            assert_eq!(secrets.device_cipher(&file).is_ok(), sound);
        }
    }
}
