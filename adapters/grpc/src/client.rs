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

pub mod bootstrap;
pub mod groups;
pub mod things;
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

    fn failed(&self, status: Status) -> ClientError {
        failed(&self.server, status)
    }

    /// # Errors
    /// As all calls: [`ClientError::Refused`] with what the server says, or it cannot be reached.
    pub async fn online(&self, page: api::Page) -> Result<api::ListOnlineResponse, ClientError> {
        let reply = self.presence().list_online(page).await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::online`].
    pub async fn sessions(
        &self,
        request: api::ListSessionsRequest,
    ) -> Result<api::ListSessionsResponse, ClientError> {
        let reply = self.presence().list_sessions(request).await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::online`].
    pub async fn count_online(
        &self,
        request: api::CountOnlineRequest,
    ) -> Result<api::CountOnlineResponse, ClientError> {
        let reply = self.presence().count_online(request).await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::online`].
    pub async fn last_seen(&self, thing_id: String) -> Result<api::LastSeenResponse, ClientError> {
        let request = api::LastSeenRequest { thing_id };
        let reply = self.presence().last_seen(request).await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::online`].
    pub async fn watch(&self) -> Result<Watch, ClientError> {
        let reply = self.presence().watch(api::WatchRequest::default()).await;
        let messages = reply.map_err(|status| self.failed(status))?.into_inner();
        Ok(Watch {
            client: self.clone(),
            messages,
        })
    }

    fn presence(&self) -> PresenceClient<InterceptedService<Channel, Bearer>> {
        PresenceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// # Errors
    /// As of [`Client::online`].
    pub async fn kick(&self, request: api::KickRequest) -> Result<api::KickResponse, ClientError> {
        let reply = self.presence().kick(request).await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::online`].
    pub async fn reload(&self) -> Result<api::ReloadResponse, ClientError> {
        let reply = ServerClient::new(self.channel.clone())
            .reload(api::ReloadRequest {})
            .await;
        Ok(reply.map_err(|status| self.failed(status))?.into_inner())
    }

    /// # Errors
    /// As of [`Client::online`].
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

/// The roll and what happens after it, as it comes.
pub struct Watch {
    client: Client,
    messages: Streaming<api::WatchResponse>,
}

impl Watch {
    /// The next news; `None` at the end.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn next(&mut self) -> Result<Option<api::watch_response::News>, ClientError> {
        let message = self.messages.message().await;
        let message = message.map_err(|status| self.client.failed(status))?;
        Ok(message.and_then(|message| message.news))
    }
}
