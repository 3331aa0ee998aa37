//! Users: who owns things and channels, how they prove themselves, and how they get in again.

mod accounts;
mod events;
mod guesses;
mod identities;
mod live;
mod model;
mod passwords;
mod reset;
mod sign_in;
mod token;

use std::sync::Arc;
use std::time::Duration;

use crate::caller::Caller;
use crate::groups::{PolicyStore, Subject};
use crate::identity::{GroupId, UserId};
use crate::policies::Action;
use crate::refusal::Refusal;
use guesses::Guesses;
use live::Live;

pub use identities::{Announced, Unannounced};
pub use model::{
    Change, DueReset, Login, LoginId, LoginStore, MAX_LOGINS, NewUser, Reset, ResetId, ResetStore,
    Rotated, Scope, TokenHash, TokenId, User, UserFilter, UserStore,
};
pub use passwords::{Hashing, Inline, PasswordRule, WrongRule, hash, verify};
pub use reset::{Mail, MailError, Mailer, Outbox};
pub use sign_in::TokenPair;
pub use token::Tokens;

/// Who may make a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// Everybody, for oneself.
    Open,
    /// Administrators.
    Admin,
}

/// What can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    pub registration: Registration,
    pub password_rule: PasswordRule,
    pub access_token_duration: Duration,
    pub refresh_token_duration: Duration,
    pub reset_token_duration: Duration,
    /// The path of the page that takes a reset token, on the host that asks for one.
    pub reset_endpoint: String,
    /// Where such a page may be: the beginnings of addresses. `*` is anywhere.
    pub reset_hosts: Vec<String>,
    /// Wrong passwords of one identity in a minute.
    pub max_guesses: u32,
    /// Wrong passwords of all identities together in a minute.
    pub max_guesses_in_all: u32,
    /// How long the mail of a reset is tried to be sent.
    pub reset_mail_timeout: Duration,
}

/// Everything that is kept of users.
pub trait Store: UserStore + LoginStore + ResetStore {}

impl<T: UserStore + LoginStore + ResetStore> Store for T {}

/// The users service.
pub struct Users {
    store: Arc<dyn Store>,
    policies: Arc<dyn PolicyStore<GroupId>>,
    hashing: Arc<dyn Hashing>,
    tokens: Tokens,
    outbox: Arc<dyn Outbox>,
    settings: Settings,
    guesses: Guesses,
    resets: Guesses,
    live: Live,
}

/// Reset mails of one address, and of all together, within [`RESET_WINDOW`].
const RESETS: u32 = 3;
const RESETS_IN_ALL: u32 = 300;
const RESET_WINDOW: Duration = Duration::from_secs(15 * 60);
const GUESS_WINDOW: Duration = Duration::from_secs(60);

impl Users {
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        policies: Arc<dyn PolicyStore<GroupId>>,
        hashing: Arc<dyn Hashing>,
        tokens: Tokens,
        outbox: Arc<dyn Outbox>,
        settings: Settings,
    ) -> Self {
        let (each, all) = (settings.max_guesses, settings.max_guesses_in_all);
        Self {
            store,
            policies,
            hashing,
            tokens,
            outbox,
            settings,
            guesses: Guesses::new(each, all, GUESS_WINDOW),
            resets: Guesses::new(RESETS, RESETS_IN_ALL, RESET_WINDOW),
            live: Live::default(),
        }
    }

    /// The user with this id, if `caller` may do `action` with it: to oneself, to those one owns, and to those of
    /// a group where one has that right. What administrators are is for administrators to change.
    async fn reach(&self, caller: &Caller, id: UserId, action: Action) -> Result<User, Refusal> {
        let found = self.store.user(id).await?;
        let own = |user: &User| user.id == caller.user || user.owner == Some(caller.user);
        match found {
            Some(user) if caller.admin => Ok(user),
            None if caller.admin => Err(Refusal::NotFound("user")),
            Some(user) if user.id == caller.user => Ok(user),
            Some(user) if user.admin && action != Action::ClientList => Err(Refusal::Denied),
            Some(user) if own(&user) => Ok(user),
            Some(user)
                if self
                    .policies
                    .reaches(caller.user, action, Subject::User(id))
                    .await? =>
            {
                Ok(user)
            }
            _ => Err(Refusal::Denied),
        }
    }
}
