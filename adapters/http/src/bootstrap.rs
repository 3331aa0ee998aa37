//! The REST interface of the bootstrap service, as clients of the platform know it.

use aide::axum::ApiRouter;
use axum::Router;

use crate::openapi::{About, finish};

#[derive(Clone)]
pub struct Service {
    pub about: About,
}

pub(crate) fn router(service: Service) -> Router {
    let about = service.about.clone();
    let router = ApiRouter::new().with_state(service);
    finish(about, router)
}
