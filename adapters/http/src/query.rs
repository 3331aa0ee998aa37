//! What requests say behind the question mark. Each kind of value knows its name, so that who is wrong about one hears
//! of which.

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use aide::operation::{ParamLocation, add_parameters, parameters_from_schema};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use rollcall_domain::entity;
use rollcall_domain::groups::Direction;
use rollcall_domain::listing::{Page, StatusFilter, Visibility};
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use crate::problem::{Problem, described};

/// The fields of a query; those that are none of `T`'s do not matter.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        let axum::extract::Query(query) = query.map_err(|error| {
            let cause = std::error::Error::source(&error);
            let told = cause.map_or_else(|| error.to_string(), ToString::to_string);
            Problem::invalid(named_once(&told))
        })?;
        Ok(Self(query))
    }
}

impl<T: JsonSchema> OperationInput for Query<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        let schema = context.schema.subschema_for::<T>();
        let parameters = parameters_from_schema(context, schema, ParamLocation::Query);
        add_parameters(context, operation, parameters);
    }

    fn inferred_early_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        vec![described(context, operation, 400)]
    }
}

/// The parser names the field of an error as well, unless it was flattened.
fn named_once(told: &str) -> &str {
    match told.split_once(": ") {
        Some((field, rest))
            if rest
                .split_once(": ")
                .is_some_and(|(again, _)| again == field) =>
        {
            rest
        }
        _ => told,
    }
}

/// Most entries of a page that is asked for over HTTP.
pub(crate) const MAX_PAGE: u64 = 100;

/// Which part of a list. To be flattened into other queries.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Paging {
    /// How many entries to leave out.
    #[serde(default, deserialize_with = "offset")]
    offset: u64,
    /// How many entries at most.
    #[serde(default = "usual_limit", deserialize_with = "limit")]
    #[schemars(range(min = 1, max = 100))]
    limit: u64,
}

impl From<Paging> for Page {
    fn from(paging: Paging) -> Self {
        let Paging { offset, limit } = paging;
        Self { offset, limit }
    }
}

pub(crate) fn usual_limit() -> u64 {
    Page::default().limit
}

/// Entities of which status: `enabled`, `disabled` or `all`.
#[derive(Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct StatusWord(#[serde(deserialize_with = "status")] pub(crate) StatusFilter);

/// Entities of whom: `mine`, `shared` or `all`.
#[derive(Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct VisibilityWord(#[serde(deserialize_with = "visibility")] pub(crate) Visibility);

/// A JSON object that the metadata of an entity has to contain.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Metadata(#[serde(deserialize_with = "metadata")] pub(crate) entity::Metadata);

fn status<'de, D: Deserializer<'de>>(input: D) -> Result<StatusFilter, D::Error> {
    word("status", input)
}

fn visibility<'de, D: Deserializer<'de>>(input: D) -> Result<Visibility, D::Error> {
    word("visibility", input)
}

fn offset<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    let offset = word("offset", input)?;
    let page = Page { offset, limit: 1 }.check();
    page.map(|page| page.offset).map_err(D::Error::custom)
}

fn limit<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    match word("limit", input)? {
        limit @ 1..=MAX_PAGE => Ok(limit),
        _ => Err(D::Error::custom("limit: from 1 to 100")),
    }
}

fn metadata<'de, D: Deserializer<'de>>(input: D) -> Result<entity::Metadata, D::Error> {
    let text = String::deserialize(input)?;
    serde_json::from_str(&text).map_err(|_| D::Error::custom("metadata: must be a JSON object"))
}

/// The way through a tree: 1 is up, -1 is down.
pub(crate) fn direction<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<Direction>, D::Error> {
    match word("dir", input)? {
        1_i8 => Ok(Some(Direction::Parents)),
        -1 => Ok(Some(Direction::Children)),
        _ => Err(D::Error::custom("dir: -1 or 1")),
    }
}

pub(crate) fn tree<'de, D: Deserializer<'de>>(input: D) -> Result<bool, D::Error> {
    word("tree", input)
}

/// A value that is written as text, whatever it is. To be used with `deserialize_with` where `T` does not know its name.
pub(crate) fn word<'de, T, D>(name: &str, input: D) -> Result<T, D::Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(input)?;
    text.parse()
        .map_err(|error| D::Error::custom(format!("{name}: {error}")))
}

/// Describes a type as a choice of words, or as text.
macro_rules! described_as {
    ($($name:ident: $schema:tt)*) => {$(
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    )*};
}

described_as! {
    StatusWord: { "type": "string", "enum": ["enabled", "disabled", "all"], "default": "enabled" }
    VisibilityWord: { "type": "string", "enum": ["mine", "shared", "all"], "default": "all" }
    Metadata: { "type": "string", "description": "A JSON object that the metadata has to contain." }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use proptest::prelude::*;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    struct Things {
        #[serde(flatten)]
        paging: Paging,
        #[serde(default)]
        status: StatusWord,
        #[serde(default)]
        visibility: VisibilityWord,
        #[serde(default)]
        metadata: Metadata,
        name: Option<String>,
    }

    fn read(query: &str) -> Result<Things, String> {
        let request = Request::builder().uri(format!("/things?{query}")).body(());
        let (mut parts, ()) = request.map_err(|error| error.to_string())?.into_parts();
        let mut reading = std::pin::pin!(Query::<Things>::from_request_parts(&mut parts, &()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match reading.as_mut().poll(&mut context) {
            std::task::Poll::Ready(read) => read
                .map(|Query(it)| it)
                .map_err(|problem| format!("{problem:?}")),
            std::task::Poll::Pending => unreachable!("nothing to wait for"),
        }
    }

    #[test]
    fn a_query_has_defaults_and_its_words() {
        let things = read("").expect("sound");
        assert_eq!(Page::from(things.paging), Page::default());
        assert_eq!(things.status.0, StatusFilter::Enabled);
        assert_eq!(things.visibility.0, Visibility::All);
        let query =
            "limit=100&offset=3&status=all&visibility=mine&name=a%20b&metadata=%7B%22a%22:1%7D&x=y";
        let things = read(query).expect("sound");
        assert_eq!(
            Page::from(things.paging),
            Page {
                offset: 3,
                limit: 100
            }
        );
        assert_eq!(things.status.0, StatusFilter::All);
        assert_eq!(things.visibility.0, Visibility::Mine);
        assert_eq!(things.metadata.0["a"], 1);
        assert_eq!(things.name.as_deref(), Some("a b"));
    }

    #[test]
    fn a_wrong_field_is_named() {
        for (query, field) in [
            ("limit=0", "limit: from 1 to 100"),
            ("limit=101", "limit: from 1 to 100"),
            ("limit=-1", "limit: "),
            ("limit=ten", "limit: "),
            ("limit=", "limit: "),
            ("offset=18446744073709551615", "offset: "),
            ("offset=x", "offset: "),
            ("status=gone", "\"status: unknown status"),
            ("visibility=public", "\"visibility: unknown"),
            ("metadata=[]", "\"metadata: must be"),
            ("metadata=%FF", "metadata: "),
            ("limit=1&limit=2", "limit"),
        ] {
            let problem = read(query).map(|_| ()).expect_err(query);
            assert!(problem.contains(field), "{query}: {problem}");
            assert!(problem.contains("400"), "{query}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn no_query_is_worse_than_wrong(query in "[a-z=&%\\[\\]:0-9+]{0,80}") {
            if let Err(problem) = read(&query) {
                prop_assert!(problem.contains("400"), "{}", problem);
            }
        }
    }
}
