//! Who asks a service for something.

use async_trait::async_trait;

use crate::identity::{Secret, UserId};
use crate::refusal::Refusal;

/// A user whose token was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user: UserId,
    /// May do everything, to everybody's.
    pub admin: bool,
}

/// The users service, as the things and bootstrap services ask it: in this process, or another one's
/// `mainflux.users.policies.AuthService`. What it answers, it announces.
#[async_trait]
pub trait Identities: Send + Sync {
    /// Whose token is this, and is that an administrator?
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`], [`Refusal::Unavailable`].
    async fn caller(&self, token: &Secret) -> Result<Caller, Refusal>;

    /// May the one with this token do `action` on `object`, by the policies of users?
    ///
    /// # Errors
    /// [`Refusal::Denied`], [`Refusal::Unauthenticated`], [`Refusal::Unavailable`].
    async fn authorize(&self, question: Question<'_>) -> Result<(), Refusal>;
}

/// The four words of an `AuthorizeReq`.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// A token, or the id of a user.
    pub subject: &'a Secret,
    /// The id of a user or a group; `things` and `users` stand for all there are.
    pub object: &'a str,
    pub action: &'a str,
    /// `client` or `group`.
    pub entity_type: &'a str,
}
