//! The REST interface of the users service, as clients of the platform know it.

mod accounts;
mod groups;
mod policies;
mod tokens;

use std::sync::Arc;

use aide::axum::ApiRouter;
use axum::Router;
use rollcall_domain::caller::Identities;
use rollcall_domain::groups::Groups;
use rollcall_domain::users::Users;

use crate::openapi::{About, finish};
use crate::request::HasIdentities;

#[derive(Clone)]
pub struct Service {
    pub users: Arc<Users>,
    pub groups: Arc<Groups>,
    pub identities: Arc<dyn Identities>,
    pub about: About,
}

impl HasIdentities for Service {
    fn identities(&self) -> &Arc<dyn Identities> {
        &self.identities
    }
}

pub(crate) fn router(service: Service) -> Router {
    let about = service.about.clone();
    let router = ApiRouter::new()
        .merge(accounts::routes())
        .merge(tokens::routes())
        .merge(groups::routes())
        .merge(policies::routes())
        .with_state(service);
    finish(about, router)
}
