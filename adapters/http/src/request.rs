//! What requests have: who asks, of what, and what they send. `query.rs` has what comes behind the question mark.

use std::convert::Infallible;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{
    FromRequest, FromRequestParts, OptionalFromRequestParts, RawPathParams, Request,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use rollcall_domain::caller::{Caller, Identities};
use rollcall_domain::identity::Secret;
use rollcall_domain::origin::network;
use rollcall_domain::refusal::Refusal;
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};

use crate::connections::Peer;
use crate::openapi;
use crate::problem::{Problem, described};

/// State of a service whose callers have tokens.
pub(crate) trait HasIdentities: Send + Sync {
    fn identities(&self) -> &Arc<dyn Identities>;
}

/// The user who asks, by `Authorization: Bearer <token>`. Optional: without that header nobody in particular asks,
/// but a wrong token is wrong.
pub(crate) struct Bearer(pub(crate) Caller);

impl<S: HasIdentities> FromRequestParts<S> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Token(token) = Token::from_request_parts(parts, state).await?;
        Ok(Self(state.identities().caller(&token).await?))
    }
}

impl<S: HasIdentities> OptionalFromRequestParts<S> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Problem> {
        if !parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state)
            .await
            .map(Some)
    }
}

impl OperationInput for Bearer {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        Token::operation_input(context, operation);
    }

    fn inferred_early_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        Token::inferred_early_responses(context, operation)
    }
}

/// An administrator asks.
pub(crate) struct Admin;

impl<S: HasIdentities> FromRequestParts<S> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let asking = <Bearer as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        match asking {
            Bearer(Caller { admin: true, .. }) => Ok(Self),
            Bearer(_) => Err(Problem::denied()),
        }
    }
}

/// The token in `Authorization: Bearer <token>`, of whatever kind it is.
pub(crate) struct Token(pub(crate) Secret);

impl<S: Send + Sync> FromRequestParts<S> for Token {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let token = credential(&parts.headers, "Bearer ").filter(|token| !token.is_empty());
        token
            .map(|token| Self(Secret::new(token)))
            .ok_or_else(|| Refusal::Unauthenticated.into())
    }
}

impl OperationInput for Token {
    fn operation_input(_: &mut GenContext, operation: &mut Operation) {
        openapi::require(operation, openapi::BEARER);
    }

    fn inferred_early_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        vec![described(context, operation, 401)]
    }
}

/// The key in `Authorization: Thing <key>`, which later clients of the platform write `Client <key>`.
pub(crate) struct ThingKey(pub(crate) Secret);

impl<S: Send + Sync> FromRequestParts<S> for ThingKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let key = ["Thing ", "Client "].into_iter();
        let mut key = key.filter_map(|scheme| credential(&parts.headers, scheme));
        let key = key.next().filter(|key| !key.is_empty());
        key.map(|key| Self(Secret::new(key)))
            .ok_or_else(|| Problem::invalid("the key of a thing is missing"))
    }
}

impl OperationInput for ThingKey {
    fn operation_input(_: &mut GenContext, operation: &mut Operation) {
        openapi::require(operation, openapi::THING_KEY);
    }

    fn inferred_early_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        vec![described(context, operation, 400)]
    }
}

fn credential<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix(scheme)
}

/// Where a request comes from, as far as guessing goes.
pub(crate) struct Origin(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let Some(Peer { address, proxies }) = parts.extensions.get() else {
            return Ok(Self(String::new()));
        };
        let lines = |name| {
            let lines = parts.headers.get_all(name).into_iter();
            // What is no text says nothing.
            lines.map(|line| line.to_str().unwrap_or_default())
        };
        let forwarded_for = lines(HeaderName::from_static("x-forwarded-for"));
        let origin = proxies.origin(*address, lines(header::FORWARDED), forwarded_for);
        Ok(Self(network(origin)))
    }
}

impl OperationInput for Origin {}

/// The id in a path with one.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: FromStr<Err: Display>, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Ids([id]) = Ids::from_request_parts(parts, state).await?;
        parse("id", &id).map(Self)
    }
}

impl<T> OperationInput for Id<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        Ids::<1>::operation_input(context, operation);
    }

    fn inferred_early_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        vec![described(context, operation, 400)]
    }
}

/// The ids in a path with several, to be parsed.
pub(crate) struct Ids<const N: usize>(pub(crate) [String; N]);

impl<const N: usize, S: Send + Sync> FromRequestParts<S> for Ids<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let wrong = || Problem::invalid("the path is not what is asked for");
        let found = RawPathParams::from_request_parts(parts, state).await;
        let found = found.map_err(|_| wrong())?;
        let found: Vec<String> = found.iter().map(|(_, value)| value.to_owned()).collect();
        found.try_into().map(Self).map_err(|_| wrong())
    }
}

impl OperationInput for Ids<1> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        openapi::path_parameters(context, operation, &["id"]);
    }

    fn inferred_early_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        vec![described(context, operation, 400)]
    }
}

/// Their names are those of policies, of which alone there are several in a path.
impl OperationInput for Ids<2> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        openapi::path_parameters(context, operation, &["subject", "object"]);
    }

    fn inferred_early_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        vec![described(context, operation, 400)]
    }
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

impl OperationInput for SaysJson {
    fn inferred_early_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        vec![described(context, operation, 415)]
    }
}

/// A body of JSON: an object.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Object(body) = read(request, state).await?;
        Ok(Self(body))
    }
}

/// A body of JSON: an array of objects.
pub(crate) struct Items<T>(pub(crate) Vec<T>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Items<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let items: Vec<Object<T>> = read(request, state).await?;
        Ok(Self(items.into_iter().map(|Object(item)| item).collect()))
    }
}

impl<T: JsonSchema> OperationInput for Body<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        Json::<T>::operation_input(context, operation);
    }

    fn inferred_early_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        [400, 413, 415]
            .map(|status| described(context, operation, status))
            .into()
    }
}

impl<T: JsonSchema> OperationInput for Items<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        Body::<Vec<T>>::operation_input(context, operation);
    }

    fn inferred_early_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        Body::<Vec<T>>::inferred_early_responses(context, operation)
    }
}

async fn read<T: DeserializeOwned, S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<T, Problem> {
    let (mut parts, body) = request.into_parts();
    SaysJson::from_request_parts(&mut parts, state).await?;
    let bytes = Bytes::from_request(Request::from_parts(parts, body), state).await;
    // It was cut off, or it is too large: who cuts off does not hear the answer.
    json(&bytes.map_err(|_| Problem::too_large())?)
}

/// The message of a parser quotes what was sent, perhaps a key: it is told where, not what.
fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut input);
    let read = read.map_err(|error| {
        let (path, error) = (error.path().to_string(), error.into_inner());
        let (line, column) = (error.line(), error.column());
        if error.classify() != serde_json::error::Category::Data {
            return Problem::invalid(format!("no JSON: line {line}, column {column}"));
        }
        let message = error.to_string();
        let what = match message.strip_prefix("missing field `") {
            Some(rest) => format!("{} is missing", rest.split('`').next().unwrap_or_default()),
            None => "not what is asked for".to_owned(),
        };
        let path: String = path.chars().take(100).collect();
        Problem::invalid(format!("{path}: {what} (line {line}, column {column})"))
    })?;
    input
        .end()
        .map_err(|_| Problem::invalid("no JSON: something follows it"))?;
    Ok(read)
}

/// What is written as an object; an array would do for the fields of a structure in their order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Fields<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }

        input
            .deserialize_map(Fields(std::marker::PhantomData))
            .map(Self)
    }
}

/// For fields that may be missing: `null`, which Go writes for an empty list or map, is what they are without it.
pub(crate) fn or_default<'de, T, D>(input: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// What empty text says: nothing.
pub(crate) fn unless_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// As [`parse`], of what may be missing, or empty.
pub(crate) fn given<T: FromStr<Err: Display>>(
    field: &str,
    text: Option<String>,
) -> Result<Option<T>, Problem> {
    unless_empty(text)
        .map(|text| parse(field, &text))
        .transpose()
}

/// An id or a word of a request.
pub(crate) fn parse<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, Problem> {
    text.parse()
        .map_err(|error| Problem::invalid(format!("{field}: {error}")))
}

pub(crate) fn parse_all<T: FromStr<Err: Display>>(
    field: &str,
    texts: &[String],
) -> Result<Vec<T>, Problem> {
    texts.iter().map(|text| parse(field, text)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "what is read matters, not its use")]
    struct Thing {
        name: String,
        #[serde(default)]
        tags: Vec<String>,
        credentials: Credentials,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "what is read matters, not its use")]
    struct Credentials {
        secret: String,
    }

    fn refused(body: &str) -> String {
        let read = json::<Object<Thing>>(body.as_bytes());
        format!("{:?}", read.map(|Object(it)| it).expect_err(body))
    }

    #[test]
    fn a_wrong_body_is_told_where_and_never_quoted() {
        for (body, told) in [
            ("", "no JSON"),
            ("{", "no JSON"),
            ("[]", "not what is asked for"),
            ("[\"n\",[],[\"hush\"]]", "not what is asked for"),
            ("\"hush\"", "not what is asked for"),
            ("{}", "name is missing"),
            ("{\"name\":1}", "name: not what is asked for"),
            (
                "{\"name\":\"n\",\"tags\":[\"a\",2]}",
                "tags[1]: not what is asked for",
            ),
            (
                "{\"name\":\"n\",\"credentials\":{}}",
                "credentials: secret is missing",
            ),
            (
                "{\"name\":\"n\",\"credentials\":{\"secret\":\"hush\"}} {}",
                "something follows",
            ),
            (
                "{\"name\":\"n\",\"credentials\":\"hush\"}",
                "credentials: not what is asked for",
            ),
        ] {
            let problem = refused(body);
            assert!(problem.contains(told), "{body}: {problem}");
            assert!(problem.contains("400"), "{body}: {problem}");
            assert!(!problem.contains("hush"), "{body}: {problem}");
        }
        let deep = format!("{{\"x\":{}1", "[".repeat(100_000));
        assert!(refused(&deep).contains("no JSON"));
        assert!(json::<Object<Thing>>(b"{\"name\":\"\xff\"}").is_err());
        let items = "[{\"name\":\"n\",\"credentials\":{\"secret\":\"s\"}}, [\"n\"]]";
        let items = json::<Vec<Object<Thing>>>(items.as_bytes());
        let problem = format!(
            "{:?}",
            items.map(|it| it.len()).expect_err("an array in it")
        );
        assert!(problem.contains("[1]: not what is asked for"), "{problem}");
    }

    proptest! {
        #[test]
        fn no_body_is_worse_than_wrong(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = json::<Object<Thing>>(&bytes);
            let _ = json::<Vec<Object<Value>>>(&bytes);
        }
    }
}
