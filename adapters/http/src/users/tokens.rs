//! How users sign in and out over REST, and how they get in again.

use aide::axum::ApiRouter;
use aide::axum::routing::{post_with, put_with};
use axum::extract::State as Shared;
use axum::http::{HeaderMap, header};
use rollcall_domain::identity::Secret;
use rollcall_domain::users::TokenPair;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Service;
use crate::openapi::is;
use crate::reply::{Done, Made, Reply};
use crate::request::{Body, Token};

pub(super) fn routes() -> ApiRouter<Service> {
    ApiRouter::new()
        .api_route(
            "/users/tokens/issue",
            post_with(issue, is("issueToken", "signs in", [401, 429])),
        )
        .api_route(
            "/users/tokens/refresh",
            post_with(
                refresh,
                is("refreshToken", "new tokens for a refresh token", []),
            ),
        )
        .api_route(
            "/users/tokens/revoke",
            post_with(
                revoke,
                is(
                    "revokeToken",
                    "signs out: no token of the login is good",
                    [],
                ),
            ),
        )
        .api_route(
            "/password/reset-request",
            post_with(
                request_reset,
                is(
                    "requestPasswordReset",
                    "mails a link to choose a password by",
                    [429],
                ),
            ),
        )
        .api_route(
            "/password/reset",
            put_with(
                reset,
                is(
                    "resetPassword",
                    "sets a password by the token of a mail",
                    [401, 429],
                ),
            ),
        )
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Login")]
struct LoginBody {
    #[serde(default)]
    identity: String,
    #[serde(default)]
    secret: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tokens")]
struct TokensView {
    access_token: String,
    refresh_token: String,
    access_type: &'static str,
}

impl From<TokenPair> for TokensView {
    fn from(pair: TokenPair) -> Self {
        Self {
            access_token: pair.access.expose().to_owned(),
            refresh_token: pair.refresh.expose().to_owned(),
            access_type: "Bearer",
        }
    }
}

async fn issue(
    Shared(service): Shared<Service>,
    Body(LoginBody { identity, secret }): Body<LoginBody>,
) -> Reply<Made<TokensView>> {
    let secret = Secret::new(secret);
    let issued = service.users.issue_token(&identity, &secret).await?;
    Ok(Made(issued.into()))
}

async fn refresh(Shared(service): Shared<Service>, Token(token): Token) -> Reply<Made<TokensView>> {
    Ok(Made(service.users.refresh_token(&token).await?.into()))
}

async fn revoke(Shared(service): Shared<Service>, Token(token): Token) -> Reply<Done<204>> {
    service.users.revoke_token(&token).await?;
    Ok(Done)
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ResetRequest")]
struct ResetRequestBody {
    #[serde(default)]
    email: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ResetRequested")]
struct RequestedView {
    msg: &'static str,
}

async fn request_reset(
    Shared(service): Shared<Service>,
    headers: HeaderMap,
    Body(ResetRequestBody { email }): Body<ResetRequestBody>,
) -> Reply<Made<RequestedView>> {
    let host = headers.get(header::REFERER).and_then(|it| it.to_str().ok());
    let host = host.unwrap_or_default();
    service.users.request_reset(&email, host).await?;
    let msg = "If there is such a user, a mail with a link is on its way";
    Ok(Made(RequestedView { msg }))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "PasswordReset")]
struct ResetBody {
    token: String,
    password: String,
    confirm_password: String,
}

#[derive(Serialize, JsonSchema)]
struct Nothing {}

async fn reset(
    Shared(service): Shared<Service>,
    Body(body): Body<ResetBody>,
) -> Reply<Made<Nothing>> {
    let [token, password, confirmed] =
        [body.token, body.password, body.confirm_password].map(Secret::new);
    service
        .users
        .reset_secret(&token, &password, &confirmed)
        .await?;
    Ok(Made(Nothing {}))
}
