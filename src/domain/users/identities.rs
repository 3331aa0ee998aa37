//! The users service as other services ask it, and as its own edges do.

use std::sync::Arc;

use async_trait::async_trait;

use crate::caller::{Caller, Identities, Question};
use crate::entity::Status;
use crate::groups::Groups;
use crate::identity::{Secret, UserId};
use crate::refusal::Refusal;

use super::{Users, events};

/// For the things and bootstrap services: what they ask is announced.
pub struct Announced {
    users: Arc<Users>,
    groups: Arc<Groups>,
}

impl Announced {
    #[must_use]
    pub const fn new(users: Arc<Users>, groups: Arc<Groups>) -> Self {
        Self { users, groups }
    }

    async fn recognize(&self, token: &Secret) -> Result<Caller, Refusal> {
        let caller = self.users.recognize(token).await?;
        let identified = events::identified(caller.user);
        self.users.store.record(vec![identified]).await;
        Ok(caller)
    }
}

#[async_trait]
impl Identities for Announced {
    async fn caller(&self, token: &Secret) -> Result<Caller, Refusal> {
        let caller = self.recognize(token).await?;
        if caller.admin {
            let question = Question {
                subject: token,
                object: "things",
                action: "c_list",
                entity_type: "client",
            };
            self.groups.authorize(&caller, &question).await?;
        }
        Ok(caller)
    }

    async fn identify(&self, token: &Secret) -> Result<UserId, Refusal> {
        self.recognize(token).await.map(|caller| caller.user)
    }

    async fn authorize(&self, question: Question<'_>) -> Result<(), Refusal> {
        let subject = match question.subject.expose().parse::<UserId>() {
            Ok(id) => self.users.enabled(id).await?,
            Err(_) => self.users.recognize(question.subject).await?,
        };
        self.groups.authorize(&subject, &question).await
    }
}

/// For the edges of the users service itself, where tokens are looked at without a word.
pub struct Unannounced(pub Arc<Announced>);

#[async_trait]
impl Identities for Unannounced {
    async fn caller(&self, token: &Secret) -> Result<Caller, Refusal> {
        self.0.users.recognize(token).await
    }

    async fn authorize(&self, question: Question<'_>) -> Result<(), Refusal> {
        self.0.authorize(question).await
    }
}

impl Users {
    async fn enabled(&self, id: UserId) -> Result<Caller, Refusal> {
        let user = self.store.user(id).await?;
        let user = user.filter(|user| user.status == Status::Enabled);
        let user = user.ok_or(Refusal::Denied)?;
        Ok(Caller {
            user: user.id,
            admin: user.admin,
        })
    }
}
