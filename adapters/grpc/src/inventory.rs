//! A things service elsewhere, as the bootstrap service asks it: over `rollcall.things.v1` with the token of its caller,
//! and about keys over `mainflux.things.policies.AuthService`, or by what they were lent by.

use std::time::Duration;

use async_trait::async_trait;
use rollcall_domain::access::{Authority, AuthorityError};
use rollcall_domain::bootstrap::{Asker, ChannelCopy, Inventory, KeyedThing};
use rollcall_domain::identity::{ChannelId, Secret, ThingId, Timestamp};
use rollcall_domain::refusal::Refusal;
use rollcall_tls::client::Settings;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::authority::RemoteAuthority;
use crate::elsewhere::{self, ElsewhereError};
use crate::things_api::channels_client::ChannelsClient;
use crate::things_api::policies_client::PoliciesClient;
use crate::things_api::things_client::ThingsClient;
use crate::things_api::{self as api, NewThing};

pub struct RemoteInventory {
    channel: Channel,
    authority: RemoteAuthority,
}

impl RemoteInventory {
    /// Connects when first asked, and again whenever need be. `timeout` bounds each question.
    ///
    /// # Errors
    /// The address makes no sense, or files for TLS cannot be used.
    pub fn new(url: &str, timeout: Duration, tls: &Settings) -> Result<Self, ElsewhereError> {
        Ok(Self {
            channel: elsewhere::lazy(url, timeout, tls)?,
            authority: RemoteAuthority::new(url, timeout, tls)?,
        })
    }

    fn things(&self) -> ThingsClient<Channel> {
        ThingsClient::new(self.channel.clone())
    }

    fn policies(&self) -> PoliciesClient<Channel> {
        PoliciesClient::new(self.channel.clone())
    }

    async fn disconnect_from(
        &self,
        asker: &Asker,
        thing: ThingId,
        channels: &[ChannelId],
    ) -> Result<(), Refusal> {
        let request = api::DisconnectRequest {
            subjects: vec![thing.to_string()],
            objects: channels.iter().map(ToString::to_string).collect(),
            external: false,
        };
        let reply = self.policies().disconnect(asked(asker, request)?).await;
        answer(reply, "connection").map(|_| ())
    }
}

#[async_trait]
impl Inventory for RemoteInventory {
    async fn thing(&self, asker: &Asker, id: ThingId) -> Result<KeyedThing, Refusal> {
        let request = api::ViewThingRequest { id: id.to_string() };
        let reply = self.things().view_thing(asked(asker, request)?).await;
        keyed(answer(reply, "thing")?)
    }

    async fn make_thing(&self, asker: &Asker, name: &str) -> Result<KeyedThing, Refusal> {
        let new = NewThing {
            name: name.to_owned(),
            ..NewThing::default()
        };
        let request = api::CreateThingsRequest { things: vec![new] };
        let reply = self.things().create_things(asked(asker, request)?).await;
        let made = answer(reply, "thing")?.things.into_iter().next();
        let made = made.ok_or_else(|| nonsense("it made no thing"))?;
        keyed(made)
    }

    async fn discard_thing(&self, asker: &Asker, id: ThingId) -> Result<(), Refusal> {
        let request = api::DisableThingRequest { id: id.to_string() };
        let reply = self.things().disable_thing(asked(asker, request)?).await;
        answer(reply, "thing").map(|_| ())
    }

    async fn channel(&self, asker: &Asker, id: ChannelId) -> Result<ChannelCopy, Refusal> {
        let request = api::ViewChannelRequest { id: id.to_string() };
        let mut channels = ChannelsClient::new(self.channel.clone());
        let reply = channels.view_channel(asked(asker, request)?).await;
        let channel = answer(reply, "channel")?;
        let changed = Timestamp(channel.updated_at.unwrap_or(channel.created_at));
        Ok(ChannelCopy {
            id,
            name: channel.name,
            metadata: match &*channel.metadata {
                "" => serde_json::Map::new(),
                text => serde_json::from_str(text).map_err(nonsense)?,
            },
            as_of: changed.to_the_microsecond(),
        })
    }

    async fn connect(
        &self,
        asker: &Asker,
        thing: ThingId,
        channels: &[ChannelId],
    ) -> Result<Vec<ChannelId>, Refusal> {
        let request = api::ConnectRequest {
            subjects: vec![thing.to_string()],
            objects: channels.iter().map(ToString::to_string).collect(),
            actions: Vec::new(),
            external: false,
            missing: true,
        };
        let reply = self.policies().connect(asked(asker, request)?).await;
        let connected = answer(reply, "thing or channel")?.policies.into_iter();
        connected
            .map(|it| it.object.parse().map_err(nonsense))
            .collect()
    }

    async fn disconnect(
        &self,
        asker: &Asker,
        thing: ThingId,
        channels: &[ChannelId],
    ) -> Result<(), Refusal> {
        match self.disconnect_from(asker, thing, channels).await {
            // One of them is not connected, and so all stay as they were.
            Err(Refusal::NotFound(_)) => {}
            disconnected => return disconnected,
        }
        for channel in channels {
            match self.disconnect_from(asker, thing, &[*channel]).await {
                Ok(()) | Err(Refusal::NotFound(_)) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    async fn is_key_of(&self, thing: ThingId, key: &Secret) -> Result<bool, Refusal> {
        match self.authority.identify(key).await {
            Ok(holder) => Ok(holder == thing),
            Err(AuthorityError::Denied) => Ok(false),
            Err(AuthorityError::Unavailable(source)) => Err(unavailable(source)),
        }
    }

    async fn lend_key(&self, asker: &Asker, thing: ThingId) -> Result<Option<Secret>, Refusal> {
        let request = api::LendThingKeyRequest {
            id: thing.to_string(),
        };
        match self.things().lend_thing_key(asked(asker, request)?).await {
            // One of before there were loans.
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            reply => Ok(Some(Secret::new(answer(reply, "thing")?.loan))),
        }
    }

    async fn end_loan(&self, asker: &Asker, thing: ThingId) -> Result<(), Refusal> {
        let request = api::EndThingKeyLoanRequest {
            id: thing.to_string(),
        };
        let mut things = self.things();
        let reply = things.end_thing_key_loan(asked(asker, request)?).await;
        answer(reply, "thing").map(|_| ())
    }

    async fn key_of(
        &self,
        thing: ThingId,
        loan: Option<&Secret>,
    ) -> Result<Option<Secret>, Refusal> {
        let Some(loan) = loan else {
            return Ok(None);
        };
        let request = api::ReadLentThingKeyRequest {
            id: thing.to_string(),
            loan: loan.expose().to_owned(),
        };
        let reply = self.things().read_lent_thing_key(request).await;
        match answer(reply, "key") {
            Ok(lent) => Ok(Some(Secret::new(lent.key))),
            Err(Refusal::NotFound(_)) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }
}

fn asked<T>(asker: &Asker, request: T) -> Result<Request<T>, Refusal> {
    let mut request = Request::new(request);
    let bearer = format!("Bearer {}", asker.token.expose());
    let bearer: Result<MetadataValue<Ascii>, _> = bearer.parse();
    let mut bearer = bearer.map_err(|_| Refusal::Unauthenticated)?;
    bearer.set_sensitive(true);
    request.metadata_mut().insert("authorization", bearer);
    Ok(request)
}

fn keyed(thing: api::Thing) -> Result<KeyedThing, Refusal> {
    Ok(KeyedThing {
        id: thing.id.parse().map_err(nonsense)?,
        owner: thing.owner.parse().map_err(nonsense)?,
        key: thing.key.map(Secret::new),
    })
}

fn answer<T>(reply: Result<Response<T>, Status>, what: &'static str) -> Result<T, Refusal> {
    let status = match reply {
        Ok(reply) => return Ok(reply.into_inner()),
        Err(status) => status,
    };
    Err(match status.code() {
        Code::Unauthenticated => Refusal::Unauthenticated,
        Code::PermissionDenied => Refusal::Denied,
        Code::NotFound => Refusal::NotFound(what),
        Code::InvalidArgument => Refusal::invalid(what, status.message().to_owned()),
        Code::AlreadyExists => Refusal::Taken(what),
        Code::ResourceExhausted => Refusal::Busy,
        _ => unavailable(Box::new(status)),
    })
}

fn nonsense(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Refusal {
    unavailable(error.into())
}

fn unavailable(source: Box<dyn std::error::Error + Send + Sync>) -> Refusal {
    Refusal::Unavailable {
        what: "the things service",
        source,
    }
}
