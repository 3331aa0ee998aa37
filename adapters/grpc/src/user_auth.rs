//! `mainflux.users.policies.AuthService`: what other services ask about users.

use std::sync::Arc;

use rollcall_domain::caller::{Identities, Question};
use rollcall_domain::identity::Secret;
use rollcall_domain::refusal::Refusal;
use tonic::{Code, Request, Response, Status};

use crate::status;
use crate::user_policies::auth_service_server::AuthService;
use crate::user_policies::{AuthorizeReq, AuthorizeRes, IdentifyReq, IdentifyRes};

pub(crate) struct Auth {
    identities: Arc<dyn Identities>,
}

impl Auth {
    pub(crate) const fn new(identities: Arc<dyn Identities>) -> Self {
        Self { identities }
    }
}

#[tonic::async_trait]
impl AuthService for Auth {
    async fn authorize(
        &self,
        request: Request<AuthorizeReq>,
    ) -> Result<Response<AuthorizeRes>, Status> {
        let asked = request.into_inner();
        if asked.subject.is_empty() || asked.object.is_empty() {
            return Err(Status::invalid_argument("name subject and object"));
        }
        let question = Question {
            subject: &Secret::new(asked.subject),
            object: &asked.object,
            action: &asked.action,
            entity_type: &asked.entity_type,
        };
        self.identities
            .authorize(question)
            .await
            .map_err(contracted)?;
        Ok(Response::new(AuthorizeRes { authorized: true }))
    }

    async fn identify(
        &self,
        request: Request<IdentifyReq>,
    ) -> Result<Response<IdentifyRes>, Status> {
        let token = Secret::new(request.into_inner().token);
        let user = self.identities.identify(&token).await;
        Ok(Response::new(IdentifyRes {
            id: user.map_err(contracted)?.to_string(),
        }))
    }
}

/// With the codes that callers of the platform expect: what they cannot put right is INTERNAL, an entity type that
/// there is not too, and what is no object is none that anybody may touch.
fn contracted(refusal: Refusal) -> Status {
    let internal = match &refusal {
        Refusal::Unavailable { .. } => true,
        Refusal::Invalid { field, .. } if *field == "object" => {
            return status::refusal(Refusal::Denied);
        }
        Refusal::Invalid { field, .. } => *field == "entity_type",
        _ => false,
    };
    let status = status::refusal(refusal);
    match internal {
        true => Status::new(Code::Internal, status.message()),
        false => status,
    }
}
