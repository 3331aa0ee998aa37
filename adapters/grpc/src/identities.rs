//! A users service elsewhere, asked over `mainflux.users.policies.AuthService`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rollcall_domain::caller::{Caller, Identities, Question};
use rollcall_domain::identity::{KeyHash, KeyHasher, Secret};
use rollcall_domain::refusal::Refusal;
use rollcall_tls::client::Settings;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::elsewhere::{self, ElsewhereError};
use crate::user_policies::auth_service_client::AuthServiceClient;
use crate::user_policies::{AuthorizeReq, IdentifyReq};

/// How long it is believed whose token something is: long enough that a burst of calls is one question, short enough that
/// who is shut out is out before anybody looks.
const BELIEVED: Duration = Duration::from_secs(2);
/// Tokens that are remembered.
const MAX_REMEMBERED: usize = 10_000;

pub struct RemoteIdentities {
    client: AuthServiceClient<Channel>,
    remembered: Remembered,
}

impl RemoteIdentities {
    /// Connects when first asked, and again whenever need be. `timeout` bounds each question.
    ///
    /// # Errors
    /// The address makes no sense, or files for TLS cannot be used.
    pub fn new(url: &str, timeout: Duration, tls: &Settings) -> Result<Self, ElsewhereError> {
        let channel = elsewhere::lazy(url, timeout, tls)?;
        Ok(Self {
            client: AuthServiceClient::new(channel),
            remembered: Remembered::new(),
        })
    }

    async fn ask(&self, request: AuthorizeReq) -> Result<bool, Status> {
        let reply = self.client.clone().authorize(request).await;
        Ok(reply?.into_inner().authorized)
    }
}

#[async_trait]
impl Identities for RemoteIdentities {
    async fn caller(&self, token: &Secret) -> Result<Caller, Refusal> {
        if let Some(caller) = self.remembered.get(token) {
            return Ok(caller);
        }
        let since = Instant::now();
        let request = IdentifyReq {
            token: token.expose().to_owned(),
        };
        let id = match self.client.clone().identify(request).await {
            Ok(reply) => reply.into_inner().id,
            Err(status) if is_answer(&status) => return Err(Refusal::Unauthenticated),
            Err(status) => return Err(unavailable(status)),
        };
        let user = id.parse().map_err(unavailable)?;
        // Administrators alone may do something with all things.
        let request = AuthorizeReq {
            subject: token.expose().to_owned(),
            object: "things".to_owned(),
            action: "c_list".to_owned(),
            entity_type: "client".to_owned(),
        };
        let admin = match self.ask(request).await {
            Ok(authorized) => authorized,
            Err(status) if status.code() == Code::Unauthenticated => {
                return Err(Refusal::Unauthenticated);
            }
            Err(status) if is_answer(&status) => false,
            Err(status) => return Err(unavailable(status)),
        };
        let caller = Caller { user, admin };
        self.remembered.keep(token, caller, since);
        Ok(caller)
    }

    async fn authorize(&self, question: Question<'_>) -> Result<(), Refusal> {
        let request = AuthorizeReq {
            subject: question.subject.expose().to_owned(),
            object: question.object.to_owned(),
            action: question.action.to_owned(),
            entity_type: question.entity_type.to_owned(),
        };
        match self.ask(request).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Denied),
            Err(status) if status.code() == Code::Unauthenticated => Err(Refusal::Unauthenticated),
            Err(status) if is_answer(&status) => Err(Refusal::Denied),
            Err(status) => Err(unavailable(status)),
        }
    }
}

/// The service has said no, rather than nothing.
fn is_answer(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::NotFound | Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument
    )
}

fn unavailable(source: impl std::error::Error + Send + Sync + 'static) -> Refusal {
    Refusal::Unavailable {
        what: "the users service",
        source: Box::new(source),
    }
}

/// Callers, for a moment. What is kept of a token is a hash that this process alone can make.
struct Remembered {
    hasher: KeyHasher,
    callers: Mutex<HashMap<KeyHash, (Caller, Instant)>>,
}

impl Remembered {
    fn new() -> Self {
        Self {
            hasher: KeyHasher::new(&rand::random()),
            callers: Mutex::default(),
        }
    }

    fn callers(&self) -> MutexGuard<'_, HashMap<KeyHash, (Caller, Instant)>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, token: &Secret) -> Option<Caller> {
        let hash = self.hasher.hash(token.expose());
        let (caller, since) = *self.callers().get(&hash)?;
        (since.elapsed() < BELIEVED).then_some(caller)
    }

    fn keep(&self, token: &Secret, caller: Caller, since: Instant) {
        let hash = self.hasher.hash(token.expose());
        let mut callers = self.callers();
        if callers.len() >= MAX_REMEMBERED {
            callers.retain(|_, (_, since)| since.elapsed() < BELIEVED);
        }
        if callers.len() >= MAX_REMEMBERED {
            callers.clear();
        }
        callers.insert(hash, (caller, since));
    }
}

#[cfg(test)]
mod tests {
    use rollcall_domain::identity::UserId;

    use super::*;

    #[test]
    fn a_caller_is_believed_for_a_moment_and_not_for_ever() {
        let remembered = Remembered::new();
        let (token, now) = (Secret::generate(), Instant::now());
        let caller = Caller {
            user: UserId::generate(),
            admin: false,
        };
        assert_eq!(remembered.get(&token), None);
        remembered.keep(&token, caller, now);
        assert_eq!(remembered.get(&token), Some(caller));
        assert_eq!(remembered.get(&Secret::generate()), None);
        let before = now.checked_sub(BELIEVED).expect("a clock that has run");
        remembered.keep(&token, caller, before);
        assert_eq!(remembered.get(&token), None);
    }

    #[test]
    fn what_is_remembered_of_callers_has_a_bound() {
        let remembered = Remembered::new();
        let caller = Caller {
            user: UserId::generate(),
            admin: true,
        };
        for n in 0..=MAX_REMEMBERED {
            remembered.keep(&Secret::new(n.to_string()), caller, Instant::now());
        }
        assert!(remembered.callers().len() <= MAX_REMEMBERED);
    }
}
