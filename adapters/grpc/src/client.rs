//! The command line's side of the services.

/// Makes a method of each call of a service.
macro_rules! calls {
    ($(#[$doc:meta])* $calls:ident of $service:ident:
     $($name:ident($request:ident) -> $answer:ident;)*) => {
        $(#[$doc])*
        pub struct $calls<'a>(&'a Client);

        impl $calls<'_> {
            $(
                /// # Errors
                /// As all calls: [`ClientError::Refused`] with what the server says, or it cannot be reached.
                pub async fn $name(&self, request: api::$request) -> Result<api::$answer, ClientError> {
                    let channel = self.0.channel.clone();
                    let mut client = $service::new(channel).max_decoding_message_size(MAX_MESSAGE);
                    let answer = client.$name(request).await;
                    Ok(answer.map_err(|status| self.0.failed(status))?.into_inner())
                }
            )*
        }
    };
}

pub mod groups;
pub mod tokens;
pub mod users;

use rollcall_domain::identity::Secret;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use crate::api::events_client::EventsClient;
use crate::api::presence_client::PresenceClient;
use crate::api::server_client::ServerClient;
use crate::api::things_client::ThingsClient;
use crate::api::{self, read_events_request::Since};

/// Things of a whole batch fit.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0:?} is no address of a server: write host:port")]
    Address(String),
    #[error("cannot reach rollcall at {0}: is `rollcall up` running there?")]
    Unreachable(String),
    #[error(
        "the server does not accept the token: sign in with `rollcall login`, or see --token-file"
    )]
    Token,
    #[error("{0} did not answer in time: ask for less at once, or allow more with grpc.timeout")]
    TooLate(String),
    /// In the server's words.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a running server.
#[derive(Clone)]
pub struct Client {
    server: String,
    channel: InterceptedService<Channel, Bearer>,
}

#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl Client {
    /// # Errors
    /// Nobody listens at `server` (`host:port`), or the token cannot be sent.
    pub async fn connect(server: &str, token: &Secret) -> Result<Self, ClientError> {
        let bad = || ClientError::Address(server.to_owned());
        let endpoint = Endpoint::from_shared(format!("http://{server}")).map_err(|_| bad())?;
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|_| ClientError::Unreachable(server.to_owned()))?;
        let mut bearer: MetadataValue<Ascii> = format!("Bearer {}", token.expose())
            .parse()
            .map_err(|_| ClientError::Token)?;
        bearer.set_sensitive(true);
        let channel = InterceptedService::new(channel, Bearer(bearer));
        Ok(Self {
            server: server.to_owned(),
            channel,
        })
    }

    fn things(&self) -> ThingsClient<InterceptedService<Channel, Bearer>> {
        ThingsClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    fn failed(&self, status: Status) -> ClientError {
        failed(&self.server, status)
    }

    /// # Errors
    /// As all calls: [`ClientError::Refused`] with what the server says, or it cannot be reached.
    pub async fn create_things(
        &self,
        things: Vec<api::NewThing>,
    ) -> Result<Vec<api::CreatedThing>, ClientError> {
        let reply = self
            .things()
            .create_things(api::CreateThingsRequest { things })
            .await;
        Ok(reply
            .map_err(|status| self.failed(status))?
            .into_inner()
            .things)
    }

    /// # Errors
    /// As of [`Client::create_things`].
    pub async fn list_things(
        &self,
        page: api::Page,
    ) -> Result<api::ListThingsResponse, ClientError> {
        let reply = self.things().list_things(page).await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::create_things`].
    pub async fn show_thing(&self, id: String) -> Result<api::ShowThingResponse, ClientError> {
        let reply = self.things().show_thing(api::ShowThingRequest { id }).await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::create_things`].
    pub async fn rotate_key(
        &self,
        id: String,
        key: String,
    ) -> Result<api::CreatedThing, ClientError> {
        let reply = self
            .things()
            .rotate_key(api::RotateKeyRequest { id, key })
            .await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::create_things`].
    pub async fn set_status(&self, id: String, enabled: bool) -> Result<api::Thing, ClientError> {
        let reply = self
            .things()
            .set_status(api::SetStatusRequest { id, enabled })
            .await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::create_things`].
    pub async fn create_channels(
        &self,
        channels: Vec<api::NewChannel>,
    ) -> Result<Vec<api::Channel>, ClientError> {
        let reply = self
            .things()
            .create_channels(api::CreateChannelsRequest { channels })
            .await;
        Ok(reply
            .map_err(|status| self.failed(status))?
            .into_inner()
            .channels)
    }

    /// # Errors
    /// As of [`Client::create_things`].
    pub async fn list_channels(
        &self,
        page: api::Page,
    ) -> Result<api::ListChannelsResponse, ClientError> {
        let reply = self.things().list_channels(page).await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::create_things`].
    pub async fn set_channel_status(
        &self,
        id: String,
        enabled: bool,
    ) -> Result<api::Channel, ClientError> {
        let reply = self
            .things()
            .set_channel_status(api::SetStatusRequest { id, enabled })
            .await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::create_things`].
    pub async fn grant(&self, request: api::ConnectRequest) -> Result<(), ClientError> {
        let reply = self.things().connect(request).await;
        reply.map(|_| ()).map_err(|status| self.failed(status))
    }

    /// # Errors
    /// As of [`Client::create_things`].
    pub async fn revoke(&self, request: api::DisconnectRequest) -> Result<(), ClientError> {
        let reply = self.things().disconnect(request).await;
        reply.map(|_| ()).map_err(|status| self.failed(status))
    }

    /// # Errors
    /// As of [`Client::create_things`].
    pub async fn online(&self, page: api::Page) -> Result<api::ListOnlineResponse, ClientError> {
        let mut client =
            PresenceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let reply = client.list_online(page).await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::create_things`].
    pub async fn kick(&self, request: api::KickRequest) -> Result<api::KickResponse, ClientError> {
        let reply = PresenceClient::new(self.channel.clone())
            .kick(request)
            .await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::create_things`].
    pub async fn reload(&self) -> Result<api::ReloadResponse, ClientError> {
        let reply = ServerClient::new(self.channel.clone())
            .reload(api::ReloadRequest {})
            .await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::create_things`].
    pub async fn events(
        &self,
        stream: String,
        since: Since,
        follow: bool,
    ) -> Result<Events, ClientError> {
        let mut client =
            EventsClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = api::ReadEventsRequest {
            stream,
            since: Some(since),
            follow,
        };
        let reply = client.read_events(request).await;
        let messages = reply.map_err(|status| self.failed(status))?.into_inner();
        Ok(Events {
            client: self.clone(),
            messages,
        })
    }
}

fn failed(server: &str, status: Status) -> ClientError {
    match status.code() {
        Code::Unauthenticated => ClientError::Token,
        // The connection has failed, not the call.
        Code::Unavailable if std::error::Error::source(&status).is_some() => {
            ClientError::Unreachable(server.to_owned())
        }
        // The server gives up on a call by cancelling it.
        Code::DeadlineExceeded | Code::Cancelled => ClientError::TooLate(server.to_owned()),
        _ => ClientError::Refused(status.message().to_owned()),
    }
}

/// Events as they come.
pub struct Events {
    client: Client,
    messages: Streaming<api::ReadEventsResponse>,
}

impl Events {
    /// The next events; `None` at the end.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn next(&mut self) -> Result<Option<Vec<api::Event>>, ClientError> {
        let message = self.messages.message().await;
        let message = message.map_err(|status| self.client.failed(status))?;
        Ok(message.map(|message| message.events))
    }
}
