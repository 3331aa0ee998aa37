//! What went wrong, as JSON: `{"error": "<what exactly>", "message": "<what kind>"}`.

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rollcall_domain::access::AuthorityError;
use rollcall_domain::refusal::Refusal;
use schemars::JsonSchema;
use serde::Serialize;

#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    error: String,
    message: &'static str,
}

/// What is said of any status that is no success.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
struct Body {
    /// What exactly.
    error: String,
    /// What kind of problem.
    message: &'static str,
}

impl Problem {
    fn new(status: StatusCode, error: impl ToString, message: &'static str) -> Self {
        Self {
            status,
            error: error.to_string(),
            message,
        }
    }

    pub(crate) fn invalid(error: impl ToString) -> Self {
        let message = "something went wrong with the request";
        Self::new(StatusCode::BAD_REQUEST, error, message)
    }

    pub(crate) fn not_found(error: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, "entity not found")
    }

    pub(crate) fn unauthenticated(error: impl ToString) -> Self {
        let message = "failed to perform authentication over the entity";
        Self::new(StatusCode::UNAUTHORIZED, error, message)
    }

    pub(crate) fn denied() -> Self {
        let message = "failed to perform authorization over the entity";
        Self::new(StatusCode::FORBIDDEN, "access denied", message)
    }

    fn conflict(error: impl ToString) -> Self {
        Self::new(StatusCode::CONFLICT, error, "entity already exists")
    }

    pub(crate) fn content_type() -> Self {
        let error = "send application/json";
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            error,
            "unsupported content type",
        )
    }

    pub(crate) fn too_large() -> Self {
        let error = "the body is larger than http.max_body";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, error, "too large")
    }

    pub(crate) fn too_slow() -> Self {
        let error = "the request took longer than http.timeout";
        Self::new(StatusCode::REQUEST_TIMEOUT, error, "try again later")
    }

    pub(crate) fn method() -> Self {
        let error = "not with this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, error, "method not allowed")
    }

    fn unavailable(error: impl ToString, source: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = source, "a request has failed");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error, "try again later")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self {
            status,
            error,
            message,
        } = self;
        (status, Json(Body { error, message })).into_response()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match &refusal {
            Refusal::Unauthenticated | Refusal::WrongCredentials => Self::unauthenticated(refusal),
            Refusal::Denied => Self::denied(),
            Refusal::NotFound(_) => Self::not_found(refusal),
            Refusal::Invalid { .. } => Self::invalid(refusal),
            Refusal::Taken(_) => Self::conflict(refusal),
            // The request is sound, but not for the state that it finds (RFC 9110, 15.5.10).
            Refusal::Already(_) => Self::new(
                StatusCode::CONFLICT,
                refusal,
                "entity is in that state already",
            ),
            Refusal::Busy => Self::new(StatusCode::TOO_MANY_REQUESTS, refusal, "try again later"),
            Refusal::Unavailable { source, .. } => Self::unavailable(&refusal, &**source),
        }
    }
}

impl Problem {
    /// `denied` is what is said of someone who is not known or not let.
    pub(crate) fn authority(error: AuthorityError, denied: fn() -> Self) -> Self {
        match error {
            AuthorityError::Denied => denied(),
            AuthorityError::Unavailable(source) => {
                Self::unavailable("things are not available", &*source)
            }
        }
    }
}

/// The description of an answer that is a problem.
pub(crate) fn described(
    context: &mut GenContext,
    operation: &mut Operation,
    status: u16,
) -> (Option<u16>, Described) {
    let mut described =
        Json::<Body>::operation_response(context, operation).expect("invariant: JSON is described");
    let reason = StatusCode::from_u16(status).ok();
    let reason = reason.and_then(|status| status.canonical_reason());
    described.description = reason.unwrap_or_default().to_owned();
    (Some(status), described)
}

impl OperationOutput for Problem {
    type Inner = Self;

    /// What any operation may answer; how one may refuse more is said of it.
    fn inferred_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        [408, 503]
            .map(|status| described(context, operation, status))
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_status_of_its_kind() {
        let failed = Refusal::Unavailable {
            what: "storage",
            source: "disk on fire".into(),
        };
        for (refusal, status) in [
            (Refusal::Unauthenticated, 401),
            (Refusal::WrongCredentials, 401),
            (Refusal::Denied, 403),
            (Refusal::NotFound("thing"), 404),
            (Refusal::invalid("limit", "from 1 to 100"), 400),
            (Refusal::Taken("identity"), 409),
            (Refusal::Already("the thing is enabled"), 409),
            (Refusal::Busy, 429),
            (failed, 503),
        ] {
            let problem = Problem::from(refusal);
            assert_eq!(problem.status, status, "{problem:?}");
            assert!(!problem.error.contains("fire"), "the cause is for the log");
        }
        let problem = Problem::from(Refusal::invalid("limit", "from 1 to 100"));
        assert_eq!(problem.error, "limit: from 1 to 100");
    }
}
