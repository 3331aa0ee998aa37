//! A things service elsewhere, asked over `mainflux.things.policies.AuthService`.

use std::time::Duration;

use async_trait::async_trait;
use rollcall_domain::access::{Action, Authority, AuthorityError};
use rollcall_domain::identity::{ChannelId, Secret, ThingId};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::policies::auth_service_client::AuthServiceClient;
use crate::policies::{AuthorizeReq, IdentifyReq};

/// The address of a things service makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{url:?} is no address of a things service: write http://host:7000")]
pub struct BadUrl {
    url: String,
    #[source]
    source: tonic::transport::Error,
}

impl BadUrl {
    pub(crate) fn new(url: &str, source: tonic::transport::Error) -> Self {
        Self {
            url: url.to_owned(),
            source,
        }
    }
}

#[derive(Clone)]
pub struct RemoteAuthority {
    client: AuthServiceClient<Channel>,
}

impl RemoteAuthority {
    /// Connects when first asked, and again whenever need be. `timeout` bounds each question.
    ///
    /// # Errors
    /// The address makes no sense.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, BadUrl> {
        let endpoint = Endpoint::from_shared(url.to_owned());
        let endpoint = endpoint.map_err(|source| BadUrl::new(url, source))?;
        let channel = endpoint
            .timeout(timeout)
            .connect_timeout(timeout)
            .connect_lazy();
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
