//! Signing in and out.

use rollcall_domain::identity::Secret;
use rollcall_tls::client::Settings;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::{ClientError, failed, open};
use crate::elsewhere::Trouble;
use crate::users_api::tokens_client::TokensClient;
use crate::users_api::{IssueRequest, RefreshRequest, RevokeRequest, TokenPair};

/// A connection to a users service, of nobody in particular.
pub struct Tokens {
    server: String,
    trouble: Trouble,
    client: TokensClient<Channel>,
}

impl Tokens {
    /// # Errors
    /// As of [`Client::connect`](super::Client::connect).
    pub async fn connect(server: &str, tls: &Settings) -> Result<Self, ClientError> {
        let trouble = Trouble::default();
        let channel = open(server, tls, &trouble).await?;
        Ok(Self {
            server: server.to_owned(),
            trouble,
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
            Err(status) => Err(failed(&self.server, &self.trouble, status)),
        }
    }
}
