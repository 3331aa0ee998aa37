//! What answers have.

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rollcall_domain::identity::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::problem::Problem;

pub(crate) type Reply<T> = Result<T, Problem>;

/// 201, where it is, and what it is.
pub(crate) struct Created<T> {
    /// A path, such as `/things/ID`.
    pub(crate) location: String,
    pub(crate) body: T,
}

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        let location = [(header::LOCATION, self.location)];
        (StatusCode::CREATED, location, Json(self.body)).into_response()
    }
}

impl<T: JsonSchema> OperationOutput for Created<T> {
    type Inner = T;

    fn inferred_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        let described = Json::<T>::operation_response(context, operation);
        let mut described = described.expect("invariant: JSON is described");
        crate::openapi::location(context, &mut described);
        vec![(Some(201), described)]
    }
}

/// 201 with a body, of what has no place of its own.
pub(crate) struct Made<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Made<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

impl<T: JsonSchema> OperationOutput for Made<T> {
    type Inner = T;

    fn inferred_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        let described = Json::<T>::operation_response(context, operation);
        vec![(Some(201), described.expect("invariant: JSON is described"))]
    }
}

/// This status, and no body.
pub(crate) struct Done<const STATUS: u16>;

impl<const STATUS: u16> IntoResponse for Done<STATUS> {
    fn into_response(self) -> Response {
        StatusCode::from_u16(STATUS)
            .expect("invariant: a status")
            .into_response()
    }
}

impl<const STATUS: u16> OperationOutput for Done<STATUS> {
    type Inner = ();

    fn inferred_responses(_: &mut GenContext, _: &mut Operation) -> Vec<(Option<u16>, Described)> {
        let description = "no body".to_owned();
        let described = Described {
            description,
            ..Described::default()
        };
        vec![(Some(STATUS), described)]
    }
}

/// The moment of a change; the platform writes the zero time of its language where there was none.
pub(crate) fn or_never(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), Timestamp::rfc3339)
}
