//! Signing in and out.

use rollcall_domain::identity::Secret;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::{ClientError, failed};
use crate::users_api::tokens_client::TokensClient;
use crate::users_api::{IssueRequest, RefreshRequest, RevokeRequest, TokenPair};

/// A connection to a users service, of nobody in particular.
pub struct Tokens {
    server: String,
    client: TokensClient<Channel>,
}

impl Tokens {
    /// # Errors
    /// Nobody listens at `server` (`host:port`).
    pub async fn connect(server: &str) -> Result<Self, ClientError> {
        let address = format!("http://{server}");
        let endpoint = Endpoint::from_shared(address);
        let endpoint = endpoint.map_err(|_| ClientError::Address(server.to_owned()))?;
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|_| ClientError::Unreachable(server.to_owned()))?;
        Ok(Self {
            server: server.to_owned(),
            client: TokensClient::new(channel),
        })
    }

    /// # Errors
    /// [`ClientError::Refused`] with what the server says, or it cannot be reached.
    pub async fn issue(
        &mut self,
        identity: String,
        password: &Secret,
    ) -> Result<TokenPair, ClientError> {
        let secret = password.expose().to_owned();
        let reply = self.client.issue(IssueRequest { identity, secret }).await;
        self.answer(reply)
    }

    /// # Errors
    /// As of [`Tokens::issue`].
    pub async fn refresh(&mut self, refresh_token: String) -> Result<TokenPair, ClientError> {
        let reply = self.client.refresh(RefreshRequest { refresh_token }).await;
        self.answer(reply)
    }

    /// Ends a login; one that has ended is no error.
    ///
    /// # Errors
    /// As of [`Tokens::issue`].
    pub async fn revoke(&mut self, token: String) -> Result<(), ClientError> {
        match self.client.revoke(RevokeRequest { token }).await {
            Err(status) if status.code() == Code::Unauthenticated => Ok(()),
            reply => self.answer(reply).map(|_| ()),
        }
    }

    fn answer<T>(&self, reply: Result<Response<T>, Status>) -> Result<T, ClientError> {
        match reply {
            Ok(reply) => Ok(reply.into_inner()),
            // It is the password that is wrong, or the login is over.
            Err(status) if status.code() == Code::Unauthenticated => {
                Err(ClientError::Refused(status.message().to_owned()))
            }
            Err(status) => Err(failed(&self.server, status)),
        }
    }
}
