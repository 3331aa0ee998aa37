//! What went wrong, as JSON: `{"error": "<what exactly>", "message": "<what kind>"}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rollcall_domain::access::AuthorityError;
use rollcall_domain::things;

#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    error: String,
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

    pub(crate) fn unauthenticated() -> Self {
        let message = "failed to perform authentication over the entity";
        Self::new(
            StatusCode::UNAUTHORIZED,
            "the token is missing or wrong",
            message,
        )
    }

    pub(crate) fn denied() -> Self {
        let message = "failed to perform authorization over the entity";
        Self::new(StatusCode::FORBIDDEN, "access denied", message)
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

    fn unavailable(source: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = source, "a request has failed");
        let error = "things are not available";
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
        let body = serde_json::json!({ "error": error, "message": message });
        (status, Json(body)).into_response()
    }
}

impl From<things::Error> for Problem {
    fn from(error: things::Error) -> Self {
        match error {
            things::Error::NotFound(_) => Self::not_found(error),
            things::Error::Invalid(_) => Self::invalid(error),
            things::Error::Taken(_) => {
                Self::new(StatusCode::CONFLICT, error, "entity already exists")
            }
            things::Error::Store(source) => Self::unavailable(&source),
        }
    }
}

impl Problem {
    /// `denied` is what is said of someone who is not known or not let.
    pub(crate) fn authority(error: AuthorityError, denied: fn() -> Self) -> Self {
        match error {
            AuthorityError::Denied => denied(),
            AuthorityError::Unavailable(source) => Self::unavailable(&*source),
        }
    }
}
