//! Whoever has forgotten a password gets a mail with a link, and with the link another password.
//!
//! The token in the link is made when the mail is, so it is nowhere but in the mail; what is kept is its hash. So a
//! mail that is tried again has another token, and only the last one is good.

use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use crate::entity;
use crate::identity::{Secret, Timestamp};
use crate::refusal::Refusal;

use super::live::Whose;
use super::model::{DueReset, Reset, ResetId, TokenHash, User};
use super::{Users, events};

/// A mail that is to be sent.
#[derive(Clone, Debug)]
pub struct Mail {
    pub to: String,
    /// What the user is called, if anything.
    pub name: String,
    /// Where a new password can be chosen.
    pub link: Secret,
    /// How long that works.
    pub good_for: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// Another time it may work.
    #[error("cannot send a mail now")]
    Later(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It will never work, such as for what is no address.
    #[error("cannot send a mail")]
    Never(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[async_trait]
pub trait Mailer: Send + Sync {
    async fn send(&self, mail: &Mail) -> Result<(), MailError>;

    /// A mail could not be sent for so long that it is dropped.
    fn given_up(&self) {}
}

/// Whoever calls [`Users::send_resets`].
pub trait Outbox: Send + Sync {
    /// There is something to send now.
    fn filled(&self);
}

/// Mails sent by one call of [`Users::send_resets`].
const BATCH: u32 = 16;
/// Between two attempts at one mail: doubled after each, up to a minute.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

impl Users {
    /// Sees to it that `email` gets a link to choose a password by, if there is such a user. Nobody is told whether
    /// there is: an address that nobody has takes the same way.
    ///
    /// # Errors
    /// [`Refusal::Invalid`]; [`Refusal::Busy`] if that was asked for too often.
    pub async fn request_reset(&self, email: &str, host: &str) -> Result<(), Refusal> {
        if email.is_empty() {
            return Err(Refusal::invalid("email", "missing"));
        }
        entity::check_name("email", email)?;
        if host.is_empty() {
            return Err(Refusal::invalid("Referer", "missing"));
        }
        entity::check_name("Referer", host)?;
        let host = host.trim_end_matches('/');
        // A link with a token that leads to whoever has asked for the mail would give him the account.
        if !self
            .settings
            .reset_hosts
            .iter()
            .any(|it| leads_to(it, host))
        {
            let reason = "links do not lead there (users.reset_hosts)";
            return Err(Refusal::invalid("Referer", reason));
        }
        // Counts, right or wrong.
        self.resets.attempt(email)?;
        let found = self.store.credentials(email).await?;
        let found = found.filter(|(user, _)| user.status == entity::Status::Enabled);
        let now = Timestamp::now();
        let reset = Reset {
            id: ResetId::generate(),
            user: found.as_ref().map(|(user, _)| user.id),
            host: host.to_owned(),
            created_at: now,
        };
        let asked = found.is_some().then(|| events::reset_asked(email, host));
        let keep = self.settings.reset_mail_timeout + self.settings.reset_token_duration;
        let expired = now.before(keep);
        let asked = asked.into_iter().collect();
        self.store.add_reset(&reset, expired, asked).await?;
        self.outbox.filled();
        Ok(())
    }

    /// Sends the mails that are due. Returns when the next one is.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn send_resets(&self, mailer: &dyn Mailer) -> Result<Option<Timestamp>, Refusal> {
        for due in self.store.due_resets(Timestamp::now(), BATCH).await? {
            self.send_reset(due, mailer).await?;
        }
        Ok(self.store.next_reset().await?)
    }

    async fn send_reset(&self, due: DueReset, mailer: &dyn Mailer) -> Result<(), Refusal> {
        let DueReset { id, user, host, .. } = &due;
        let now = Timestamp::now();
        if due.created_at.after(self.settings.reset_mail_timeout) <= now {
            mailer.given_up();
            return Ok(self.store.drop_reset(*id).await?);
        }
        let token = Secret::generate();
        let good_for = self.settings.reset_token_duration;
        let expires_at = now.after(good_for);
        self.store.arm_reset(*id, &hash(&token), expires_at).await?;
        let endpoint = &self.settings.reset_endpoint;
        let link = format!("{host}{endpoint}?token={}", token.expose());
        let mail = Mail {
            to: user.identity.clone(),
            name: user.name.clone(),
            link: Secret::new(link),
            good_for,
        };
        match mailer.send(&mail).await {
            Ok(()) => {
                let sent = events::reset_sent(&user.identity, host, user);
                Ok(self.store.reset_sent(*id, vec![sent]).await?)
            }
            Err(MailError::Later(_)) => {
                let pause = RETRY
                    .saturating_mul(1 << due.attempts.min(6))
                    .min(MAX_RETRY);
                let until = Timestamp::now().after(pause);
                Ok(self.store.defer_reset(*id, until).await?)
            }
            Err(MailError::Never(_)) => Ok(self.store.drop_reset(*id).await?),
        }
    }

    /// Sets another password with the token of a mail. All logins end.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] for a token that is wrong, used or expired; [`Refusal::Invalid`] for a password
    /// that breaks the rule or is not what was typed twice.
    pub async fn reset_secret(
        &self,
        token: &Secret,
        password: &Secret,
        confirmed: &Secret,
    ) -> Result<User, Refusal> {
        if !password.matches(confirmed.expose()) {
            let reason = "not what was typed the first time";
            return Err(Refusal::invalid("confirm_password", reason));
        }
        self.settings.password_rule.check("password", password)?;
        let (token, now) = (hash(token), Timestamp::now());
        let user = self.store.reset_by_token(&token, now).await?;
        let user = user.ok_or(Refusal::Unauthenticated)?;
        let hash = self.hashing.hash(password).await?;
        let _ending = self.live.ending(Whose::User(user));
        let updated = |user: &User| events::updated("user.reset_secret", user);
        let done = self.store.complete_reset(&token, now, &hash, &updated);
        done.await?.ok_or(Refusal::Unauthenticated)
    }
}

/// Whether `host` is at `allowed`, on any port and path.
fn leads_to(allowed: &str, host: &str) -> bool {
    if allowed == "*" {
        return true;
    }
    let Some(rest) = host.strip_prefix(allowed) else {
        return false;
    };
    let rest = match rest.strip_prefix(':') {
        Some(port) => port.trim_start_matches(|it: char| it.is_ascii_digit()),
        None => rest,
    };
    rest.is_empty() || rest.starts_with('/')
}

fn hash(token: &Secret) -> TokenHash {
    TokenHash(Sha256::digest(token.expose().as_bytes()).into())
}
