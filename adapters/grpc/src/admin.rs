//! The server itself, for administrators.

use std::sync::Arc;

use rollcall_domain::ports::{Reload, Reloaded};
use tonic::{Request, Response, Status};

use crate::api;

pub(crate) struct Server {
    reload: Arc<dyn Reload>,
}

impl Server {
    pub(crate) fn new(reload: Arc<dyn Reload>) -> Self {
        Self { reload }
    }
}

#[tonic::async_trait]
impl api::server_server::Server for Server {
    async fn reload(
        &self,
        _: Request<api::ReloadRequest>,
    ) -> Result<Response<api::ReloadResponse>, Status> {
        let reload = Arc::clone(&self.reload);
        let reloaded = tokio::task::spawn_blocking(move || reload.reload()).await;
        let Reloaded { done, failed } =
            reloaded.map_err(|_| Status::internal("cannot read files again"))?;
        if !failed.is_empty() {
            return Err(Status::failed_precondition(failed.join("; ")));
        }
        Ok(Response::new(api::ReloadResponse { done }))
    }
}
