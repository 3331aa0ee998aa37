//! The logins of the command line, by the server that knows them: a file that its owner alone can read.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rollcall_domain::identity::Secret;
use rollcall_grpc::client::tokens::Tokens;
use rollcall_grpc::users_api::TokenPair;
use rollcall_tls::client::Settings as ClientTls;
use serde::{Deserialize, Serialize};

/// What is left of an access token when it is time for another.
const SOON: Duration = Duration::from_secs(30);

pub(super) struct Credentials {
    path: PathBuf,
    logins: BTreeMap<String, Login>,
    /// Of all commands, one at a time changes the file: a refresh token is good once.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Login {
    identity: String,
    access_token: String,
    refresh_token: String,
}

/// The file, within the folder where settings of programs are kept.
fn place() -> Option<PathBuf> {
    let absolute = |name| {
        let folder = PathBuf::from(std::env::var_os(name)?);
        folder.is_absolute().then_some(folder)
    };
    let folder = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(folder.join("rollcall").join("credentials.json"))
}

impl Credentials {
    /// Those there are; nothing if nobody ever signed in.
    pub(super) fn find() -> anyhow::Result<Option<Self>> {
        match place().filter(|path| path.exists()) {
            Some(path) => Self::open(path).map(Some),
            None => Ok(None),
        }
    }

    /// Those there are, or a place for them.
    pub(super) fn make() -> anyhow::Result<Self> {
        Self::open(place().context("set HOME or XDG_CONFIG_HOME: logins are kept there")?)
    }

    fn open(path: PathBuf) -> anyhow::Result<Self> {
        let failed = || format!("cannot open {}", path.display());
        let lock = lock(&path).with_context(failed)?;
        let logins = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("cannot read {}: remove it", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(failed),
        };
        Ok(Self {
            path,
            logins,
            _lock: lock,
        })
    }

    pub(super) fn add(
        &mut self,
        server: &str,
        identity: String,
        pair: TokenPair,
    ) -> anyhow::Result<()> {
        let login = Login {
            identity,
            access_token: pair.access_token,
            refresh_token: pair.refresh_token,
        };
        self.logins.insert(server.to_owned(), login);
        self.write()
    }

    /// Ends the login at a server. Returns whose it was.
    pub(super) async fn end(
        &mut self,
        server: &str,
        tls: &ClientTls,
    ) -> anyhow::Result<Option<String>> {
        let Some(login) = self.logins.get(server) else {
            return Ok(None);
        };
        let token = login.refresh_token.clone();
        Tokens::connect(server, tls).await?.revoke(token).await?;
        let ended = self.logins.remove(server);
        self.write()?;
        Ok(ended.map(|login| login.identity))
    }

    /// The token for `server`, or of the users service that it asks; a new one when it is about to run out.
    pub(super) async fn token(
        &mut self,
        servers: &[String],
        tls: &ClientTls,
    ) -> anyhow::Result<Option<Secret>> {
        let known = servers
            .iter()
            .find(|server| self.logins.contains_key(*server));
        let Some((server, login)) = known.and_then(|it| Some((it, self.logins.get_mut(it)?)))
        else {
            return Ok(None);
        };
        if runs_out(&login.access_token, SystemTime::now() + SOON) {
            let refresh = login.refresh_token.clone();
            let pair = Tokens::connect(server, tls).await?.refresh(refresh).await;
            let pair = pair.with_context(|| {
                format!("the login at {server} is over: sign in with `rollcall login`")
            })?;
            login.access_token = pair.access_token;
            login.refresh_token = pair.refresh_token;
            let token = Secret::new(login.access_token.clone());
            self.write()?;
            return Ok(Some(token));
        }
        Ok(Some(Secret::new(login.access_token.clone())))
    }

    fn write(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&self.logins)?;
        let beside = self.path.with_extension("new");
        let written = (|| {
            let mut file = open_private(&beside)?;
            file.set_len(0)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)
        })();
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn lock(path: &Path) -> io::Result<File> {
    let folder = path.parent().unwrap_or(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let lock = open_private(&path.with_extension("lock"))?;
    lock.lock()?;
    Ok(lock)
}

fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(false);
    options.mode(0o600).open(path)
}

/// Whether a token is out of date at `moment`, by what it says itself. What cannot be read may be good for ever.
fn runs_out(token: &str, moment: SystemTime) -> bool {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let claims = token.split('.').nth(1);
    let claims = claims.and_then(|claims| BASE64_URL_SAFE_NO_PAD.decode(claims).ok());
    let claims = claims.and_then(|claims| serde_json::from_slice::<Claims>(&claims).ok());
    claims.is_some_and(|Claims { exp }| UNIX_EPOCH + Duration::from_secs(exp) <= moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_when_it_runs_out() {
        let token = |claims: &str| format!("e30.{}.x", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!runs_out(&token("{\"exp\":100}"), at(99)));
        assert!(runs_out(&token("{\"exp\":100}"), at(100)));
        for other in ["", "a token", "a.b.c", &token("{}"), &token("{\"exp\":-1}")] {
            assert!(!runs_out(other, at(100)));
        }
    }
}
