//! The domain's errors in the words of gRPC.

use std::collections::HashMap;

use rollcall_domain::access::AuthorityError;
use rollcall_domain::refusal::Refusal;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Whose reasons they are, in the details of a status.
const DOMAIN: &str = "rollcall";
const WRONG_CREDENTIALS: &str = "WRONG_CREDENTIALS";

/// The code says what kind of refusal it is, the details (`google.rpc`) which field is wrong, or the reason as one
/// word, and what is taken. The cause is for the log.
pub(crate) fn refusal(refusal: Refusal) -> Status {
    let message = refusal.to_string();
    let (code, reason) = match refusal {
        Refusal::Invalid { field, reason } => {
            let details = ErrorDetails::with_bad_request_violation(field, reason);
            return Status::with_error_details(Code::InvalidArgument, message, details);
        }
        Refusal::Unauthenticated => (Code::Unauthenticated, "TOKEN_MISSING_OR_WRONG"),
        Refusal::WrongCredentials => (Code::Unauthenticated, WRONG_CREDENTIALS),
        Refusal::Denied => (Code::PermissionDenied, "ACCESS_DENIED"),
        Refusal::NotFound(_) => (Code::NotFound, "NOT_FOUND"),
        Refusal::Taken(what) => {
            let what = HashMap::from([("what".to_owned(), what.to_owned())]);
            let details = ErrorDetails::with_error_info("TAKEN", DOMAIN, what);
            return Status::with_error_details(Code::AlreadyExists, message, details);
        }
        Refusal::Already(_) => (Code::FailedPrecondition, "ALREADY"),
        Refusal::Busy => (Code::ResourceExhausted, "BUSY"),
        Refusal::Unavailable { source, .. } => {
            let error = &*source as &dyn std::error::Error;
            tracing::error!(error, "a call has failed");
            (Code::Unavailable, "NOT_AVAILABLE")
        }
    };
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}

/// Whether it is identity or password that is wrong, and no token.
pub(crate) fn is_about_credentials(status: &Status) -> bool {
    let info = status.get_details_error_info();
    info.is_some_and(|it| it.reason == WRONG_CREDENTIALS)
}

/// `denied` is what the service says of someone it does not know or does not let.
pub(crate) fn authority(error: AuthorityError, denied: fn(&'static str) -> Status) -> Status {
    match error {
        AuthorityError::Denied => denied("access denied"),
        AuthorityError::Unavailable(source) => {
            tracing::error!(
                error = &*source as &dyn std::error::Error,
                "a call has failed"
            );
            Status::internal("things are not available")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named_and_every_other_refusal_has_a_reason() {
        let status = refusal(Refusal::invalid("limit", "from 1 to 1000"));
        assert_eq!(status.code(), Code::InvalidArgument);
        let violations = status.get_details_bad_request().expect("details");
        let violation = &violations.field_violations[0];
        assert_eq!(violation.field, "limit");
        assert_eq!(violation.description, "from 1 to 1000");

        let failed = Refusal::Unavailable {
            what: "storage",
            source: "disk on fire".into(),
        };
        for (refused, code, reason) in [
            (
                Refusal::Unauthenticated,
                Code::Unauthenticated,
                "TOKEN_MISSING_OR_WRONG",
            ),
            (
                Refusal::WrongCredentials,
                Code::Unauthenticated,
                "WRONG_CREDENTIALS",
            ),
            (Refusal::Denied, Code::PermissionDenied, "ACCESS_DENIED"),
            (Refusal::NotFound("thing"), Code::NotFound, "NOT_FOUND"),
            (Refusal::Taken("identity"), Code::AlreadyExists, "TAKEN"),
            (
                Refusal::Already("enabled"),
                Code::FailedPrecondition,
                "ALREADY",
            ),
            (Refusal::Busy, Code::ResourceExhausted, "BUSY"),
            (failed, Code::Unavailable, "NOT_AVAILABLE"),
        ] {
            let status = refusal(refused);
            assert_eq!(status.code(), code);
            assert_eq!(
                status.get_details_error_info().expect("details").reason,
                reason
            );
            assert!(
                !status.message().contains("fire"),
                "the cause is for the log"
            );
        }
    }

    #[test]
    fn what_is_taken_is_named() {
        let status = refusal(Refusal::Taken("id"));
        let info = status.get_details_error_info().expect("details");
        assert_eq!(info.metadata["what"], "id");
        assert_eq!(status.message(), "id is taken");
    }
}
