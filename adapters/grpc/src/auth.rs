//! `mainflux.things.policies.AuthService`: what MQTT fronts ask, this one's own and others.

use std::sync::Arc;

use rollcall_domain::access::{Action, Authority};
use rollcall_domain::identity::{ChannelId, Secret};
use rollcall_domain::things::{EntityType, Things};
use tonic::{Request, Response, Status};

use crate::policies::auth_service_server::AuthService;
use crate::policies::{AuthorizeReq, AuthorizeRes, IdentifyReq, IdentifyRes};
use crate::status;

pub(crate) struct Auth {
    things: Arc<Things>,
}

impl Auth {
    pub(crate) const fn new(things: Arc<Things>) -> Self {
        Self { things }
    }
}

#[tonic::async_trait]
impl AuthService for Auth {
    async fn authorize(
        &self,
        request: Request<AuthorizeReq>,
    ) -> Result<Response<AuthorizeRes>, Status> {
        let AuthorizeReq {
            subject,
            object,
            action,
            entity_type,
        } = request.into_inner();
        if subject.is_empty() || object.is_empty() {
            return Err(Status::invalid_argument(
                "name the key as subject, the channel as object",
            ));
        }
        let action: Action = action
            .parse()
            .map_err(|error| Status::invalid_argument(format!("{error}")))?;
        let entity_type: EntityType = entity_type
            .parse()
            .map_err(|error| Status::internal(format!("{error}")))?;
        // What is no id is no channel that anyone may use.
        let channel: ChannelId = object
            .parse()
            .map_err(|_| Status::permission_denied("access denied"))?;
        let thing = self
            .things
            .authorize_as(&Secret::new(subject), channel, action, entity_type)
            .await
            .map_err(|error| status::authority(error, Status::permission_denied))?;
        Ok(Response::new(AuthorizeRes {
            thing_id: thing.to_string(),
            authorized: true,
        }))
    }

    async fn identify(
        &self,
        request: Request<IdentifyReq>,
    ) -> Result<Response<IdentifyRes>, Status> {
        let IdentifyReq { secret } = request.into_inner();
        if secret.is_empty() {
            return Err(Status::invalid_argument("name the key as secret"));
        }
        let thing = self
            .things
            .identify(&Secret::new(secret))
            .await
            .map_err(|error| status::authority(error, Status::not_found))?;
        Ok(Response::new(IdentifyRes {
            id: thing.to_string(),
        }))
    }
}
