//! What users, their logins and their resets are, and where they are kept.

use async_trait::async_trait;
use uuid::Uuid;

use crate::entity::{self, Metadata, Status, Update};
use crate::event::Event;
use crate::groups::Tell;
use crate::identity::{Secret, Timestamp, UserId};
use crate::listing::{Listing, Page, StatusFilter, Visibility};
use crate::metadata::check_wanted;
use crate::ports::StoreError;
use crate::refusal::Refusal;

/// A user as it is kept. The password is no part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub id: UserId,
    pub name: String,
    pub tags: Vec<String>,
    pub owner: Option<UserId>,
    /// What the user signs in with: an e-mail address, as a rule.
    pub identity: String,
    pub metadata: Metadata,
    pub status: Status,
    pub admin: bool,
    pub created_at: Timestamp,
    pub update: Option<Update>,
}

/// What is to become a user.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub name: String,
    pub tags: Vec<String>,
    /// Administrators may name another owner than themselves.
    pub owner: Option<UserId>,
    pub identity: String,
    pub secret: Secret,
    pub metadata: Metadata,
    pub status: Status,
    pub admin: bool,
}

/// Which users a list has. All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserFilter {
    pub status: StatusFilter,
    pub name: Option<String>,
    pub identity: Option<String>,
    pub tag: Option<String>,
    pub owner: Option<UserId>,
    /// What the metadata must contain.
    pub metadata: Option<Metadata>,
    pub visibility: Visibility,
}

impl UserFilter {
    /// # Errors
    /// [`Refusal::Invalid`] for what nobody can have, and for more than can be searched for.
    pub fn check(&self) -> Result<(), Refusal> {
        let identity = self.identity.as_ref();
        identity.map_or(Ok(()), |it| entity::check_name("identity", it))?;
        self.metadata.as_ref().map_or(Ok(()), check_wanted)
    }
}

/// Among whom a list is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Everybody,
    /// Those that this user owns, those of groups where it may list members, or both.
    Of(UserId, Visibility),
}

/// What becomes of a user; all else stays as it is.
#[derive(Clone, Debug)]
pub enum Change {
    Details {
        name: Option<String>,
        metadata: Option<Metadata>,
    },
    Tags(Vec<String>),
    /// Resets end: whoever reads the mail of the earlier one is not to set the password.
    Identity(String),
    Owner(UserId),
    /// Only from the other state. The logins of a disabled user end.
    Status(Status),
    /// A hash in PHC format, only instead of the one given. All logins end.
    Password {
        hash: String,
        instead_of: String,
    },
}

/// Where users are kept. A change and its events are kept together, or neither is.
#[async_trait]
pub trait UserStore: Send + Sync {
    /// `password` is an Argon2id hash in PHC format.
    async fn add_user(
        &self,
        user: &User,
        password: &str,
        events: Vec<Event>,
    ) -> Result<(), StoreError>;

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError>;

    /// The user with this identity, and the hash of the password.
    async fn credentials(&self, identity: &str) -> Result<Option<(User, String)>, StoreError>;

    /// The hash of the password.
    async fn password(&self, id: UserId) -> Result<Option<String>, StoreError>;

    /// Makes the change, and returns what the user has become. `None` if there is none that it applies to.
    async fn change_user(
        &self,
        id: UserId,
        change: &Change,
        update: Update,
        tell: &Tell<User>,
    ) -> Result<Option<User>, StoreError>;

    /// In the order they were made.
    async fn users(
        &self,
        scope: Scope,
        filter: &UserFilter,
        page: Page,
    ) -> Result<Listing<User>, StoreError>;

    /// The oldest administrator, enabled or not.
    async fn admin(&self) -> Result<Option<User>, StoreError>;

    /// Keeps events of what changes nothing, if they can be kept: whoever is let or shown something is not to suffer
    /// because nobody can be told of it.
    async fn record(&self, events: Vec<Event>);
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(Uuid);

        impl $name {
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::new_v4())
            }

            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::try_parse(text).map(Self)
            }
        }
    };
}

random_id!(
    /// All tokens that come of one sign-in have it in common.
    LoginId
);
random_id!(
    /// One token. Of a login, one refresh token is good at a time.
    TokenId
);
random_id!(ResetId);

/// A sign-in and the tokens that come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub id: LoginId,
    pub user: UserId,
    /// The refresh token that is good now.
    pub refresh: TokenId,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// What came of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotated {
    Done,
    /// It was used before, so somebody has it who should not: the login has ended.
    Reused,
    /// There is no such login any longer.
    Gone,
}

/// Most logins of one user; more end the oldest.
pub const MAX_LOGINS: u32 = 1_000;

#[async_trait]
pub trait LoginStore: Send + Sync {
    /// Begins a login if the user is enabled and the password is still the one with this hash. Returns whether
    /// that was so. Forgets logins that have expired.
    async fn add_login(
        &self,
        login: &Login,
        password: &str,
        events: Vec<Event>,
    ) -> Result<bool, StoreError>;

    /// Whose login this is, if it has not ended and the user is enabled.
    async fn login(&self, id: LoginId, now: Timestamp) -> Result<Option<User>, StoreError>;

    /// Puts `new` in place of `login.refresh`.
    async fn rotate_login(
        &self,
        login: &Login,
        new: TokenId,
        now: Timestamp,
        events: Vec<Event>,
    ) -> Result<Rotated, StoreError>;

    async fn end_login(&self, id: LoginId) -> Result<(), StoreError>;
}

/// What is kept of a reset token: it has 256 random bits, so a plain hash cannot be searched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

/// Somebody has asked for a reset. The token is made when the mail is, and is kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    pub id: ResetId,
    /// Of an address that nobody has here, nobody's.
    pub user: Option<UserId>,
    pub host: String,
    pub created_at: Timestamp,
}

/// A reset whose mail is to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct DueReset {
    pub id: ResetId,
    pub user: User,
    pub host: String,
    pub created_at: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
}

#[async_trait]
pub trait ResetStore: Send + Sync {
    /// Forgets those that ended before `expired`.
    async fn add_reset(
        &self,
        reset: &Reset,
        expired: Timestamp,
        events: Vec<Event>,
    ) -> Result<(), StoreError>;

    /// Resets of enabled users whose mail is due, the earliest first.
    async fn due_resets(&self, now: Timestamp, limit: u32) -> Result<Vec<DueReset>, StoreError>;

    /// When the next mail is due.
    async fn next_reset(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Lets the token with this hash reset the password until `expires_at`, no other of this reset.
    async fn arm_reset(
        &self,
        id: ResetId,
        token: &TokenHash,
        expires_at: Timestamp,
    ) -> Result<(), StoreError>;

    /// Its mail is on its way.
    async fn reset_sent(&self, id: ResetId, events: Vec<Event>) -> Result<(), StoreError>;

    /// Its mail is to be tried again.
    async fn defer_reset(&self, id: ResetId, until: Timestamp) -> Result<(), StoreError>;

    async fn drop_reset(&self, id: ResetId) -> Result<(), StoreError>;

    /// Whose password the token may reset, if the user is enabled.
    async fn reset_by_token(
        &self,
        token: &TokenHash,
        now: Timestamp,
    ) -> Result<Option<UserId>, StoreError>;

    /// Uses the token up: sets the password, ends all logins and all other resets of the user. `None` if the token
    /// is not good any longer.
    async fn complete_reset(
        &self,
        token: &TokenHash,
        now: Timestamp,
        password: &str,
        tell: &Tell<User>,
    ) -> Result<Option<User>, StoreError>;
}
