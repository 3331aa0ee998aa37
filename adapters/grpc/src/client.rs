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
use rollcall_tls::CertificateError;
use rollcall_tls::client::Settings;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::api::events_client::EventsClient;
use crate::api::presence_client::PresenceClient;
use crate::api::server_client::ServerClient;
use crate::api::{self, read_events_request::Since};
use crate::elsewhere::{self, ConnectError, ElsewhereError, Trouble};
use crate::status;

/// Things of a whole batch fit.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0:?} is no address of a server: write host:port, or https://host:port")]
    Address(String),
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    #[error("cannot reach rollcall at {0}: is `rollcall up` running there?")]
    Unreachable(String),
    /// Somebody is there, but they cannot speak with each other.
    #[error("cannot reach rollcall at {server}: {why}")]
    Estranged { server: String, why: String },
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
    trouble: Trouble,
    channel: InterceptedService<Channel, Bearer>,
}

#[derive(Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            let metadata = request.metadata_mut();
            metadata.insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}

impl Client {
    /// Without a token, as nobody in particular.
    ///
    /// # Errors
    /// Nobody listens at `server` (`host:port`, or with `https://` in front), or the token cannot be sent.
    pub async fn connect(
        server: &str,
        tls: &Settings,
        token: Option<&Secret>,
    ) -> Result<Self, ClientError> {
        let trouble = Trouble::default();
        let channel = open(server, tls, &trouble).await?;
        let bearer = |token: &Secret| {
            let bearer = format!("Bearer {}", token.expose()).parse();
            let mut bearer: MetadataValue<Ascii> = bearer.map_err(|_| ClientError::Token)?;
            bearer.set_sensitive(true);
            Ok::<_, ClientError>(bearer)
        };
        let bearer = token.map(bearer).transpose()?;
        let channel = InterceptedService::new(channel, Bearer(bearer));
        Ok(Self {
            server: server.to_owned(),
            trouble,
            channel,
        })
    }

    fn failed(&self, status: Status) -> ClientError {
        failed(&self.server, &self.trouble, status)
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

/// A server as people write it, in one way: without `http://` and the last slash.
#[must_use]
pub fn canonical(server: &str) -> &str {
    let server = server.strip_prefix("http://").unwrap_or(server);
    server.trim_end_matches('/')
}

/// Whether what is said to this server could be read on its way.
#[must_use]
pub fn is_in_clear(server: &str) -> bool {
    elsewhere::is_in_clear(&url(server))
}

fn url(server: &str) -> String {
    match server.contains("://") {
        true => server.to_owned(),
        false => format!("http://{server}"),
    }
}

async fn open(server: &str, tls: &Settings, trouble: &Trouble) -> Result<Channel, ClientError> {
    match elsewhere::connect(&url(server), tls, trouble).await {
        Ok(channel) => Ok(channel),
        Err(ConnectError::Elsewhere(ElsewhereError::Url(_))) => {
            Err(ClientError::Address(server.to_owned()))
        }
        Err(ConnectError::Elsewhere(ElsewhereError::Certificates(error))) => Err(error.into()),
        Err(ConnectError::Unreachable(error)) => Err(unreachable(server, trouble, &error)),
    }
}

/// Why there is no connection.
fn unreachable(
    server: &str,
    trouble: &Trouble,
    error: &(dyn std::error::Error + 'static),
) -> ClientError {
    let root = elsewhere::root(error);
    let io = root.downcast_ref::<std::io::Error>();
    let why = match (trouble.words(), io) {
        // Not always is it in the error: the connection may have ended before the call was on its way.
        (Some(words), _) => format!(
            "{words} (--server, --tls-ca, --tls-name and --tls-certificate go over the configuration)"
        ),
        // The network says so; whatever has words of its own has been told by somebody who knows.
        (None, Some(io)) if io.get_ref().is_none() => {
            return ClientError::Unreachable(server.to_owned());
        }
        (None, None) if !server.starts_with("https://") => {
            format!("{root}; if it speaks TLS, write https://{server}")
        }
        _ => root.to_string(),
    };
    let server = server.to_owned();
    ClientError::Estranged { server, why }
}

fn failed(server: &str, trouble: &Trouble, status: Status) -> ClientError {
    match (status.code(), std::error::Error::source(&status)) {
        // It is the password that is wrong.
        (Code::Unauthenticated, _) if status::is_about_credentials(&status) => {
            ClientError::Refused(status.message().to_owned())
        }
        (Code::Unauthenticated, _) => ClientError::Token,
        (_, Some(source)) if trouble.words().is_some() => unreachable(server, trouble, source),
        // The connection ended before the call was on its way.
        (Code::Cancelled, Some(source)) if elsewhere::was_cut_off(source) => {
            unreachable(server, trouble, source)
        }
        // The server gives up on a call by cancelling it.
        (Code::DeadlineExceeded | Code::Cancelled, _) => ClientError::TooLate(server.to_owned()),
        // The connection has failed, not the call.
        (_, Some(source)) => unreachable(server, trouble, source),
        (_, None) => ClientError::Refused(status.message().to_owned()),
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
