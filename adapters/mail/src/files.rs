//! Mails go into a folder, for who has no mail server, or not yet: a file each, for their owner alone.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rollcall_domain::users::{Mail, MailError, Mailer};

use crate::OpenError;
use crate::template::Letters;

pub(crate) struct Files {
    letters: Letters,
    folder: PathBuf,
}

impl Files {
    pub(crate) fn open(letters: Letters, folder: &Path) -> Result<Self, OpenError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| OpenError::Make {
            path: folder.into(),
            source,
        })?;
        Ok(Self {
            letters,
            folder: folder.into(),
        })
    }
}

#[async_trait]
impl Mailer for Files {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let message = self.letters.write(mail)?.formatted();
        let later = |error: std::io::Error| MailError::Later(Box::new(error));
        // In the order of their writing.
        let name = uuid::Uuid::now_v7();
        let (path, beside) = (
            self.folder.join(format!("{name}.eml")),
            self.folder.join(format!("{name}.new")),
        );
        let written = path.clone();
        let write = move || -> std::io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(&message)?;
            std::fs::rename(&beside, &path)
        };
        let done = tokio::task::spawn_blocking(write).await;
        done.map_err(|error| later(std::io::Error::other(error)))?
            .map_err(later)?;
        tracing::info!(file = %written.display(), "a mail was written: no mail.host is set");
        Ok(())
    }
}
