//! The domain's errors in the words of gRPC.

use rollcall_domain::access::AuthorityError;
use rollcall_domain::things;
use tonic::Status;

pub(crate) fn things(error: things::Error) -> Status {
    match error {
        things::Error::NotFound(_) => Status::not_found(error.to_string()),
        things::Error::Invalid(_) => Status::invalid_argument(error.to_string()),
        things::Error::Taken(_) => Status::already_exists(error.to_string()),
        things::Error::Store(source) => {
            let error = &source as &dyn std::error::Error;
            tracing::error!(error, "a call has failed");
            Status::unavailable("things are not available: see the log of the server")
        }
    }
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
