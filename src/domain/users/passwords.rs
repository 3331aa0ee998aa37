//! Passwords: what they must be, and what is kept of them.

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use async_trait::async_trait;
use regex::Regex;

use crate::identity::Secret;
use crate::refusal::Refusal;

/// Bytes of a password: longer ones would only cost time.
const MAX_PASSWORD: usize = 1_024;

/// What every new password must match.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct PasswordRule(Regex);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a regular expression")]
pub struct WrongRule;

impl std::str::FromStr for PasswordRule {
    type Err = WrongRule;

    fn from_str(text: &str) -> Result<Self, WrongRule> {
        Regex::new(text).map(Self).map_err(|_| WrongRule)
    }
}

impl TryFrom<String> for PasswordRule {
    type Error = WrongRule;

    fn try_from(text: String) -> Result<Self, WrongRule> {
        text.parse()
    }
}

impl PasswordRule {
    /// # Errors
    /// [`Refusal::Invalid`], of `field`.
    pub(super) fn check(&self, field: &'static str, password: &Secret) -> Result<(), Refusal> {
        let text = password.expose();
        if text.len() > MAX_PASSWORD {
            return Err(Refusal::invalid(field, "at most 1024 bytes"));
        }
        if !self.0.is_match(text) {
            let rule = format!("a password must match {}", self.0.as_str());
            return Err(Refusal::invalid(field, rule));
        }
        Ok(())
    }
}

/// Runs [`hash`] and [`verify`] where they hold up nobody: each takes a core for some hundredths of a second, and
/// 19 MiB.
#[async_trait]
pub trait Hashing: Send + Sync {
    /// # Errors
    /// [`Refusal::Busy`] if too many wait.
    async fn hash(&self, password: &Secret) -> Result<String, Refusal>;

    /// Is that the password with this hash?
    ///
    /// # Errors
    /// [`Refusal::Busy`] if too many wait.
    async fn verify(&self, password: &Secret, hash: &str) -> Result<bool, Refusal>;
}

/// On the spot, for tests and benches.
pub struct Inline;

#[async_trait]
impl Hashing for Inline {
    async fn hash(&self, password: &Secret) -> Result<String, Refusal> {
        Ok(hash(password))
    }

    async fn verify(&self, password: &Secret, hash: &str) -> Result<bool, Refusal> {
        Ok(verify(password, hash))
    }
}

/// An Argon2id hash in PHC format.
#[must_use]
pub fn hash(password: &Secret) -> String {
    let hash = Argon2::default().hash_password(password.expose().as_bytes());
    let hash = hash.expect("invariant: the parameters are sound, and passwords shorter than 4 GiB");
    hash.to_string()
}

#[must_use]
pub fn verify(password: &Secret, hash: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else {
        return false;
    };
    let given = password.expose().as_bytes();
    given.len() <= MAX_PASSWORD && Argon2::default().verify_password(given, &hash).is_ok()
}

/// A hash that no password has, with the parameters of all others: whoever signs in as somebody that there
/// is not takes the same way, and time, as with a wrong password.
pub(super) const NOBODYS_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$0td4W66lDDPEa2ia8CYApw$U1lkbVlrKfYutEfD0mbO+jfdyeL8RiZNWS+jsjzxvlc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobodys_hash_costs_what_a_users_does_and_opens_nothing() {
        let password = Secret::new("a password");
        let users = hash(&password);
        assert!(verify(&password, &users));
        assert!(!verify(&password, NOBODYS_HASH));
        assert!(!verify(&password, "no hash"));
        let nobody = PasswordHash::new(NOBODYS_HASH).expect("a hash");
        let user = PasswordHash::new(&users).expect("a hash");
        assert_eq!(nobody.algorithm, user.algorithm);
        assert_eq!(nobody.params, user.params);
        assert_eq!(nobody.version, user.version);
    }

    #[test]
    fn a_password_must_match_the_rule_and_have_an_end() {
        let rule: PasswordRule = "^.{8,}$".parse().expect("a rule");
        let check = |text: &str| rule.check("secret", &Secret::new(text));
        check("12345678").expect("long enough");
        check("ääääääää").expect("signs count, not bytes");
        for wrong in ["", "1234567", &"x".repeat(1_025)] {
            assert!(matches!(
                check(wrong),
                Err(Refusal::Invalid {
                    field: "secret",
                    ..
                })
            ));
        }
        assert!("(".parse::<PasswordRule>().is_err());
    }
}
