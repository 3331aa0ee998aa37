//! What bootstrap has set aside.

use rollcall_domain::bootstrap::{SetAside, Told};
use rollcall_domain::listing::Page;
use tonic::{Request, Response, Status};

use super::Service;
use crate::bootstrap_api as api;
use crate::status::refusal;

#[tonic::async_trait]
impl api::set_aside_server::SetAside for Service {
    async fn list_set_aside(
        &self,
        request: Request<api::ListSetAsideRequest>,
    ) -> Result<Response<api::ListSetAsideResponse>, Status> {
        let asker = self.asker(&request).await?;
        let api::ListSetAsideRequest { offset, limit } = request.into_inner();
        let listing = self
            .bootstrap
            .set_aside(&asker.caller, Page { offset, limit })
            .await;
        let listing = listing.map_err(refusal)?;
        Ok(Response::new(api::ListSetAsideResponse {
            entries: listing.items.into_iter().map(entry).collect(),
            total: listing.total,
        }))
    }

    async fn retry_set_aside(
        &self,
        request: Request<api::RetrySetAsideRequest>,
    ) -> Result<Response<api::RetrySetAsideResponse>, Status> {
        let asker = self.asker(&request).await?;
        let api::RetrySetAsideRequest { source, id } = request.into_inner();
        let retried = self.bootstrap.retry(&asker, source.as_deref(), &id).await;
        let news = retried.map_err(refusal)? == Told::News;
        Ok(Response::new(api::RetrySetAsideResponse { news }))
    }

    async fn drop_set_aside(
        &self,
        request: Request<api::DropSetAsideRequest>,
    ) -> Result<Response<api::DropSetAsideResponse>, Status> {
        let asker = self.asker(&request).await?;
        let api::DropSetAsideRequest { source, id } = request.into_inner();
        let dropped = self
            .bootstrap
            .drop_set_aside(&asker.caller, source.as_deref(), &id)
            .await;
        dropped.map_err(refusal)?;
        Ok(Response::new(api::DropSetAsideResponse {}))
    }
}

fn entry(entry: SetAside) -> api::SetAsideEntry {
    let fields = entry.fields.into_iter().map(|(name, value)| api::Field {
        name: name.into_owned(),
        value: value.into_owned(),
    });
    api::SetAsideEntry {
        source: entry.source,
        id: entry.id,
        reason: entry.reason,
        fields: fields.collect(),
        at: entry.at.0,
    }
}
