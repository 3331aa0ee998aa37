//! What all requests have: who asks, and what they send.

use std::fmt::Display;
use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use rollcall_domain::identity::{Secret, UserId};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// Who may ask for what is not for everybody: whoever has the token of the administrator.
#[derive(Clone)]
pub struct Callers {
    pub token: Secret,
    pub admin: UserId,
}

impl Callers {
    fn find(&self, headers: &HeaderMap) -> Option<UserId> {
        let token = credential(headers, "Bearer ")?;
        self.token.matches(token).then_some(self.admin)
    }
}

/// Part of the state of a service that has callers.
pub(crate) trait HasCallers: Send + Sync {
    fn callers(&self) -> &Callers;
}

/// The user who asks, by `Authorization: Bearer <token>`.
pub(crate) struct Caller(pub(crate) UserId);

impl<S: HasCallers> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = state.callers().find(&parts.headers);
        caller.map(Self).ok_or_else(Problem::unauthenticated)
    }
}

/// The key in `Authorization: Thing <key>`.
pub(crate) struct ThingKey(pub(crate) Secret);

impl<S: Send + Sync> FromRequestParts<S> for ThingKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let key = credential(&parts.headers, "Thing ").filter(|key| !key.is_empty());
        key.map(|key| Self(Secret::new(key)))
            .ok_or_else(|| Problem::invalid("the key of a thing is missing"))
    }
}

fn credential<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix(scheme)
}

/// The content type says JSON. For requests whose body does not matter.
pub(crate) struct SaysJson;

impl<S: Send + Sync> FromRequestParts<S> for SaysJson {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let kind = parts.headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_json = kind.to_ascii_lowercase().contains("application/json");
        is_json.then_some(Self).ok_or_else(Problem::content_type)
    }
}

/// A body of JSON: an object.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        SaysJson::from_request_parts(&mut parts, state).await?;
        let bytes = Bytes::from_request(Request::from_parts(parts, body), state).await;
        // It was cut off, or it is too large: who cuts off does not hear the answer.
        let bytes = bytes.map_err(|_| Problem::too_large())?;
        if !bytes.trim_ascii_start().starts_with(b"{") {
            // An array would do for the fields of a structure in their order.
            return Err(Problem::invalid("the body must be a JSON object"));
        }
        // The message quotes what was sent, perhaps a key: it is told where, not what.
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let what = match error.classify() {
                serde_json::error::Category::Data => "not what is asked for",
                _ => "no JSON",
            };
            Problem::invalid(format!("{what}: line {line}, column {column}"))
        })
    }
}

/// An id or a word of a request.
pub(crate) fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(Problem::invalid)
}

pub(crate) fn parse_all<T: FromStr<Err: Display>>(texts: &[String]) -> Result<Vec<T>, Problem> {
    texts.iter().map(|text| parse(text)).collect()
}
