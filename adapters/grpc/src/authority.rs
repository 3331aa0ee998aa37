//! A things service elsewhere, asked over `mainflux.things.policies.AuthService`.

use std::time::Duration;

use async_trait::async_trait;
use rollcall_domain::access::{Action, Authority, AuthorityError};
use rollcall_domain::identity::{ChannelId, Secret, ThingId};
use rollcall_tls::client::Settings;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::elsewhere::{self, ElsewhereError};
use crate::policies::auth_service_client::AuthServiceClient;
use crate::policies::{AuthorizeReq, IdentifyReq};

#[derive(Clone)]
pub struct RemoteAuthority {
    client: AuthServiceClient<Channel>,
}

impl RemoteAuthority {
    /// Connects when first asked, and again whenever need be. `timeout` bounds each question.
    ///
    /// # Errors
    /// The address makes no sense, or files for TLS cannot be used.
    pub fn new(url: &str, timeout: Duration, tls: &Settings) -> Result<Self, ElsewhereError> {
        let channel = elsewhere::lazy(url, timeout, tls)?;
        Ok(Self {
            client: AuthServiceClient::new(channel),
        })
    }
}

#[async_trait]
impl Authority for RemoteAuthority {
    async fn identify(&self, key: &Secret) -> Result<ThingId, AuthorityError> {
        let secret = key.expose().to_owned();
        let reply = self.client.clone().identify(IdentifyReq { secret }).await;
        thing(&reply.map_err(refusal)?.into_inner().id)
    }

    async fn authorize(
        &self,
        key: &Secret,
        channel: ChannelId,
        action: Action,
    ) -> Result<ThingId, AuthorityError> {
        let request = AuthorizeReq {
            subject: key.expose().to_owned(),
            object: channel.to_string(),
            action: action.as_str().to_owned(),
            entity_type: "thing".to_owned(),
        };
        let reply = self
            .client
            .clone()
            .authorize(request)
            .await
            .map_err(refusal)?
            .into_inner();
        if !reply.authorized {
            return Err(AuthorityError::Denied);
        }
        thing(&reply.thing_id)
    }
}

fn thing(id: &str) -> Result<ThingId, AuthorityError> {
    id.parse()
        .map_err(|error| AuthorityError::Unavailable(Box::new(error)))
}

fn refusal(status: Status) -> AuthorityError {
    match status.code() {
        Code::NotFound | Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => {
            AuthorityError::Denied
        }
        _ => AuthorityError::Unavailable(Box::new(status)),
    }
}
