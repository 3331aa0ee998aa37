//! Users: who owns things and channels, and how they prove themselves.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use async_trait::async_trait;

use crate::event::{self, Event, Stream};
use crate::identity::{Secret, Timestamp, UserId};
use crate::ports::StoreError;
use crate::things::Status;

/// A user as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    /// What the user signs in with: an e-mail address, as a rule.
    pub identity: String,
    pub name: String,
    pub status: Status,
    pub admin: bool,
    pub created_at: Timestamp,
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

    /// The oldest enabled administrator.
    async fn admin(&self) -> Result<Option<User>, StoreError>;

    /// The enabled user with this identity, and the hash of the password.
    async fn by_identity(&self, identity: &str) -> Result<Option<(User, String)>, StoreError>;
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("wrong identity or password")]
    Denied,
    #[error("cannot hash the password: {0}")]
    Hash(argon2::password_hash::Error),
    #[error("users are not available")]
    Store(#[from] StoreError),
}

/// The users service.
pub struct Users {
    store: Arc<dyn UserStore>,
}

impl Users {
    #[must_use]
    pub fn new(store: Arc<dyn UserStore>) -> Self {
        Self { store }
    }

    /// The administrator; made with `identity` and `password` if there is none yet.
    /// Returns whether that was so.
    ///
    /// # Errors
    /// The password cannot be hashed, or the store is not available.
    pub async fn ensure_admin(
        &self,
        identity: &str,
        password: &Secret,
    ) -> Result<(UserId, bool), Error> {
        if let Some(admin) = self.store.admin().await? {
            return Ok((admin.id, false));
        }
        let user = User {
            id: UserId::generate(),
            identity: identity.into(),
            name: "admin".into(),
            status: Status::Enabled,
            admin: true,
            created_at: Timestamp::now(),
        };
        let hash = Argon2::default().hash_password(password.expose().as_bytes());
        let hash = hash.map_err(Error::Hash)?.to_string();
        let created = Event::operation(
            Stream::Users,
            "user.create",
            [
                ("id", user.id.to_string()),
                ("status", user.status.as_str().into()),
                ("created_at", user.created_at.rfc3339()),
                ("name", user.name.clone()),
                ("metadata", event::json(&serde_json::Map::new())),
                ("identity", user.identity.clone()),
            ],
        );
        self.store.add_user(&user, &hash, vec![created]).await?;
        Ok((user.id, true))
    }

    /// Who signs in with this identity and password.
    ///
    /// # Errors
    /// [`Error::Denied`], which does not tell whether there is such a user.
    pub async fn sign_in(&self, identity: &str, password: &Secret) -> Result<User, Error> {
        let found = self.store.by_identity(identity).await?;
        let hash = found.as_ref().map_or(NOBODYS_HASH, |(_, hash)| hash);
        let verified = PasswordHash::new(hash)
            .map(|hash| Argon2::default().verify_password(password.expose().as_bytes(), &hash));
        match (found, verified) {
            (Some((user, _)), Ok(Ok(()))) => Ok(user),
            _ => Err(Error::Denied),
        }
    }
}

/// A hash that no password has, with the parameters of all others: whoever signs in as somebody that there
/// is not takes the same way, and time, as with a wrong password.
const NOBODYS_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$0td4W66lDDPEa2ia8CYApw$U1lkbVlrKfYutEfD0mbO+jfdyeL8RiZNWS+jsjzxvlc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobodys_hash_costs_what_a_users_does_and_opens_nothing() {
        let nobody = PasswordHash::new(NOBODYS_HASH).expect("a hash");
        let user = Argon2::default()
            .hash_password(b"a password")
            .expect("hashed");
        assert_eq!(nobody.algorithm, user.algorithm);
        assert_eq!(nobody.params, user.params);
        assert_eq!(nobody.version, user.version);
        assert!(
            Argon2::default()
                .verify_password(b"a password", &nobody)
                .is_err()
        );
    }
}
