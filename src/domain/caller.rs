//! Who asks a service for something.

use std::sync::Arc;

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

    /// Whose token is this? Less is announced than of [`Self::caller`].
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`], [`Refusal::Unavailable`].
    async fn identify(&self, token: &Secret) -> Result<UserId, Refusal> {
        self.caller(token).await.map(|caller| caller.user)
    }

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

/// Takes the token of the machine's owner for the administrator; about all other tokens it asks.
pub struct OwnersToken {
    token: Secret,
    admin: UserId,
    others: Arc<dyn Identities>,
}

impl OwnersToken {
    #[must_use]
    pub fn new(token: Secret, admin: UserId, others: Arc<dyn Identities>) -> Self {
        Self {
            token,
            admin,
            others,
        }
    }
}

#[async_trait]
impl Identities for OwnersToken {
    async fn caller(&self, token: &Secret) -> Result<Caller, Refusal> {
        if self.token.matches(token.expose()) {
            return Ok(Caller {
                user: self.admin,
                admin: true,
            });
        }
        self.others.caller(token).await
    }

    async fn identify(&self, token: &Secret) -> Result<UserId, Refusal> {
        if self.token.matches(token.expose()) {
            return Ok(self.admin);
        }
        self.others.identify(token).await
    }

    async fn authorize(&self, question: Question<'_>) -> Result<(), Refusal> {
        if self.token.matches(question.subject.expose()) {
            return Ok(());
        }
        self.others.authorize(question).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    #[async_trait]
    impl Identities for Nobody {
        async fn caller(&self, _: &Secret) -> Result<Caller, Refusal> {
            Err(Refusal::Unauthenticated)
        }

        async fn authorize(&self, _: Question<'_>) -> Result<(), Refusal> {
            Err(Refusal::Unauthenticated)
        }
    }

    fn about_things(subject: &Secret) -> Question<'_> {
        Question {
            subject,
            object: "things",
            action: "c_list",
            entity_type: "client",
        }
    }

    #[tokio::test]
    async fn the_machines_owner_is_the_administrator_and_nobody_else_is() {
        let (token, admin) = (Secret::generate(), UserId::generate());
        let identities = OwnersToken::new(token.clone(), admin, Arc::new(Nobody));
        let caller = identities.caller(&token).await.expect("the owner");
        assert_eq!(
            caller,
            Caller {
                user: admin,
                admin: true
            }
        );
        identities
            .authorize(about_things(&token))
            .await
            .expect("the owner");
        for wrong in ["", &token.expose()[1..], &token.expose().to_lowercase()] {
            let wrong = Secret::new(wrong);
            assert!(identities.caller(&wrong).await.is_err());
            assert!(identities.authorize(about_things(&wrong)).await.is_err());
        }
    }
}
