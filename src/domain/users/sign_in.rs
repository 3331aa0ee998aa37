//! Logins and their tokens: issued, used, refreshed, revoked.
//!
//! A login begins with a password and is what all its tokens have in common. It ends when it is revoked, when its
//! user is disabled or gets another password, and when a refresh token comes a second time; then none of its tokens
//! is good, however long it would have lasted.

use crate::caller::Caller;
use crate::entity;
use crate::identity::{Secret, Timestamp};
use crate::refusal::Refusal;

use super::live::Whose;
use super::model::{Login, LoginId, Rotated, TokenId};
use super::passwords::NOBODYS_HASH;
use super::token::{Claims, Kind};
use super::{Users, events};

/// What a client is given to go on with.
#[derive(Clone, Debug)]
pub struct TokenPair {
    pub access: Secret,
    pub refresh: Secret,
}

impl Users {
    /// Begins a login.
    ///
    /// # Errors
    /// [`Refusal::WrongCredentials`], which does not tell whether there is such a user, nor whether it is disabled;
    /// [`Refusal::Busy`] after too many wrong guesses.
    pub async fn issue_token(
        &self,
        identity: &str,
        password: &Secret,
    ) -> Result<TokenPair, Refusal> {
        if identity.is_empty() {
            return Err(Refusal::invalid("identity", "missing"));
        }
        if password.expose().is_empty() {
            return Err(Refusal::invalid("secret", "missing"));
        }
        // Such as nobody has: it is not to be kept in the table of those who guess, nor looked for.
        if entity::check_name("identity", identity).is_err() {
            return Err(Refusal::WrongCredentials);
        }
        let attempt = self.guesses.attempt(identity)?;
        let found = self.store.credentials(identity).await?;
        let hash = found.as_ref().map_or(NOBODYS_HASH, |(_, hash)| hash);
        let right = self.hashing.verify(password, hash).await?;
        let (user, hash) = match found {
            Some(found) if right => found,
            _ => return Err(Refusal::WrongCredentials),
        };
        let now = Timestamp::now();
        let login = Login {
            id: LoginId::generate(),
            user: user.id,
            refresh: TokenId::generate(),
            created_at: now,
            expires_at: self.login_ends(now),
        };
        let issued = vec![events::issued(&user.identity)];
        if !self.store.add_login(&login, &hash, issued).await? {
            return Err(Refusal::WrongCredentials);
        }
        attempt.right();
        Ok(self.pair(&login, &user.identity, now))
    }

    /// New tokens for a refresh token, which is good once.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`]; if the token was used before, the login has ended.
    pub async fn refresh_token(&self, refresh: &Secret) -> Result<TokenPair, Refusal> {
        let now = Timestamp::now();
        let claims = self.tokens.read(refresh, now);
        let claims = claims.filter(|claims| claims.kind == Kind::Refresh);
        let claims = claims.ok_or(Refusal::Unauthenticated)?;
        let user = self.store.login(claims.login, now).await?;
        let user = user.filter(|user| user.id == claims.user);
        let user = user.ok_or(Refusal::Unauthenticated)?;
        let mut login = Login {
            id: claims.login,
            user: user.id,
            refresh: claims.id,
            created_at: now,
            expires_at: self.login_ends(now),
        };
        let new = TokenId::generate();
        let refreshed = vec![events::refreshed()];
        let ending = self.live.ending(Whose::Login(login.id));
        let rotated = self.store.rotate_login(&login, new, now, refreshed).await?;
        drop(ending);
        match rotated {
            Rotated::Done => {
                login.refresh = new;
                Ok(self.pair(&login, &user.identity, now))
            }
            Rotated::Reused | Rotated::Gone => Err(Refusal::Unauthenticated),
        }
    }

    /// Ends the login that a token belongs to, an access or a refresh token.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`].
    pub async fn revoke_token(&self, token: &Secret) -> Result<(), Refusal> {
        let claims = self.tokens.read(token, Timestamp::now());
        let login = claims.ok_or(Refusal::Unauthenticated)?.login;
        let _ending = self.live.ending(Whose::Login(login));
        Ok(self.store.end_login(login).await?)
    }

    /// Whose access token this is. Announces nothing: that is for those who ask for other services.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`], [`Refusal::Unavailable`].
    pub async fn recognize(&self, token: &Secret) -> Result<Caller, Refusal> {
        let now = Timestamp::now();
        let claims = self.tokens.read(token, now);
        let claims = claims.filter(|claims| claims.kind == Kind::Access);
        let claims = claims.ok_or(Refusal::Unauthenticated)?;
        let epoch = match self.live.get(claims.login) {
            Ok(caller) => return Ok(caller),
            Err(epoch) => epoch,
        };
        let user = self.store.login(claims.login, now).await?;
        let user = user.filter(|user| user.id == claims.user);
        let user = user.ok_or(Refusal::Unauthenticated)?;
        let caller = Caller {
            user: user.id,
            admin: user.admin,
        };
        self.live.keep(claims.login, caller, epoch);
        Ok(caller)
    }

    fn login_ends(&self, now: Timestamp) -> Timestamp {
        now.after(self.settings.refresh_token_duration)
    }

    fn pair(&self, login: &Login, identity: &str, now: Timestamp) -> TokenPair {
        let sign = |kind, id, duration| {
            let claims = Claims {
                kind,
                user: login.user,
                login: login.id,
                id,
            };
            self.tokens.sign(&claims, identity, now, duration)
        };
        let settings = &self.settings;
        TokenPair {
            access: sign(
                Kind::Access,
                TokenId::generate(),
                settings.access_token_duration,
            ),
            refresh: sign(
                Kind::Refresh,
                login.refresh,
                settings.refresh_token_duration,
            ),
        }
    }
}
