//! Who calls: `authorization: Bearer <token>`, asked of the users service.

use std::sync::Arc;
use std::task::{Context, Poll};

use rollcall_domain::caller::{Caller, Identities};
use rollcall_domain::identity::Secret;
use rollcall_domain::refusal::Refusal;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request as HttpRequest, Response as HttpResponse};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::{Request, Status};

use crate::status;

/// The token of a call, for who asks on behalf of the caller.
pub(crate) fn token<T>(request: &Request<T>) -> Result<Secret, Status> {
    bearer(request.metadata().as_ref())
}

/// Whose call it is.
pub(crate) async fn caller<T>(
    identities: &Arc<dyn Identities>,
    request: &Request<T>,
) -> Result<Caller, Status> {
    let token = token(request)?;
    identities.caller(&token).await.map_err(status::refusal)
}

fn bearer(headers: &HeaderMap) -> Result<Secret, Status> {
    let value = headers.get("authorization").and_then(|it| it.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer "));
    match token {
        Some(token) if !token.is_empty() => Ok(Secret::new(token)),
        _ => Err(status::refusal(Refusal::Unauthenticated)),
    }
}

/// Lets administrators alone come to the service within.
#[derive(Clone)]
pub(crate) struct ForAdmins<S> {
    inner: S,
    identities: Arc<dyn Identities>,
}

impl<S> ForAdmins<S> {
    pub(crate) const fn new(inner: S, identities: Arc<dyn Identities>) -> Self {
        Self { inner, identities }
    }
}

impl<S: NamedService> NamedService for ForAdmins<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<HttpRequest<Body>> for ForAdmins<S>
where
    S: Service<HttpRequest<Body>, Response = HttpResponse<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = HttpResponse<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        // The one that was ready answers; its place is taken by one that has yet to be asked.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        let identities = Arc::clone(&self.identities);
        Box::pin(async move {
            match admin(&identities, request.headers()).await {
                Ok(()) => ready.call(request).await,
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

async fn admin(identities: &Arc<dyn Identities>, headers: &HeaderMap) -> Result<(), Status> {
    let token = bearer(headers)?;
    match identities.caller(&token).await {
        Ok(Caller { admin: true, .. }) => Ok(()),
        Ok(_) => Err(status::refusal(Refusal::Denied)),
        Err(refused) => Err(status::refusal(refused)),
    }
}
