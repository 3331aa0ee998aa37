//! Configurations, and what devices get for an external id and key.

mod aside;

use std::sync::Arc;

use rollcall_domain::bootstrap::{
    Asker, Bootstrap, Certificates, ChannelCopy, Config, Filter, NewConfig, Provision, State,
};
use rollcall_domain::caller::Identities;
use rollcall_domain::identity::Secret;
use rollcall_domain::listing::Page;
use rollcall_domain::origin::{Proxies, network};
use tonic::{Request, Response, Status};

use crate::bootstrap_api as api;
use crate::caller::{caller, token};
use crate::status::refusal;
use crate::words::{given, json, optional, parse, parse_all};

#[derive(Clone)]
pub(crate) struct Service {
    bootstrap: Arc<Bootstrap>,
    identities: Arc<dyn Identities>,
    proxies: Proxies,
}

impl Service {
    pub(crate) const fn new(
        bootstrap: Arc<Bootstrap>,
        identities: Arc<dyn Identities>,
        proxies: Proxies,
    ) -> Self {
        Self {
            bootstrap,
            identities,
            proxies,
        }
    }

    /// Where a device asks from, as far as guessing keys goes.
    fn origin<T>(&self, request: &Request<T>) -> String {
        let Some(peer) = request.remote_addr() else {
            return String::new();
        };
        let lines = |name| {
            let lines = request.metadata().get_all(name).into_iter();
            // What is no text says nothing.
            lines.map(|line| line.to_str().unwrap_or_default())
        };
        let forwarded_for = lines("x-forwarded-for");
        network(
            self.proxies
                .origin(peer.ip(), lines("forwarded"), forwarded_for),
        )
    }

    async fn asker<T>(&self, request: &Request<T>) -> Result<Asker, Status> {
        Ok(Asker {
            caller: caller(&self.identities, request).await?,
            token: token(request)?,
        })
    }
}

#[tonic::async_trait]
impl api::bootstrap_server::Bootstrap for Service {
    async fn add_config(
        &self,
        request: Request<api::AddConfigRequest>,
    ) -> Result<Response<api::AddConfigResponse>, Status> {
        let asker = self.asker(&request).await?;
        let asked = request.into_inner();
        let new = NewConfig {
            thing: given("thing_id", &asked.thing_id)?,
            external_id: asked.external_id,
            external_key: Secret::new(asked.external_key),
            name: asked.name,
            content: asked.content,
            certificates: certificates(asked.certificates),
            channels: parse_all("channels", &asked.channels)?,
        };
        let id = self.bootstrap.add(&asker, new).await.map_err(refusal)?;
        let thing_id = id.to_string();
        Ok(Response::new(api::AddConfigResponse { thing_id }))
    }

    async fn view_config(
        &self,
        request: Request<api::ViewConfigRequest>,
    ) -> Result<Response<api::Config>, Status> {
        let asker = self.asker(&request).await?;
        let id = parse("thing_id", &request.into_inner().thing_id)?;
        let found = self.bootstrap.view(&asker, id).await.map_err(refusal)?;
        Ok(Response::new(config(found)))
    }

    async fn list_configs(
        &self,
        request: Request<api::ListConfigsRequest>,
    ) -> Result<Response<api::ListConfigsResponse>, Status> {
        let asker = self.asker(&request).await?;
        let asked = request.into_inner();
        let filter = Filter {
            state: asked.state.map(state).transpose()?,
            external_id: asked.external_id,
            thing: optional("thing_id", asked.thing_id.as_deref())?,
            thing_key: asked.thing_key.map(Secret::new),
            name: asked.name,
        };
        let page = Page {
            offset: asked.offset,
            limit: asked.limit,
        };
        let listing = self.bootstrap.list(&asker, filter, page).await;
        let listing = listing.map_err(refusal)?;
        Ok(Response::new(api::ListConfigsResponse {
            configs: listing.items.into_iter().map(config).collect(),
            total: listing.total,
        }))
    }

    async fn update_config(
        &self,
        request: Request<api::UpdateConfigRequest>,
    ) -> Result<Response<api::UpdateConfigResponse>, Status> {
        let asker = self.asker(&request).await?;
        let asked = request.into_inner();
        let id = parse("thing_id", &asked.thing_id)?;
        let (name, content) = (asked.name, asked.content);
        let updated = self.bootstrap.update(&asker, id, name, content).await;
        updated.map_err(refusal)?;
        Ok(Response::new(api::UpdateConfigResponse {}))
    }

    async fn update_certificates(
        &self,
        request: Request<api::UpdateCertificatesRequest>,
    ) -> Result<Response<api::UpdateCertificatesResponse>, Status> {
        let asker = self.asker(&request).await?;
        let asked = request.into_inner();
        let id = parse("thing_id", &asked.thing_id)?;
        let texts = certificates(asked.certificates);
        let updated = self.bootstrap.update_certificates(&asker, id, texts).await;
        updated.map_err(refusal)?;
        Ok(Response::new(api::UpdateCertificatesResponse {}))
    }

    async fn update_connections(
        &self,
        request: Request<api::UpdateConnectionsRequest>,
    ) -> Result<Response<api::UpdateConnectionsResponse>, Status> {
        let asker = self.asker(&request).await?;
        let asked = request.into_inner();
        let id = parse("thing_id", &asked.thing_id)?;
        let channels = parse_all("channels", &asked.channels)?;
        let updated = self.bootstrap.update_connections(&asker, id, &channels);
        updated.await.map_err(refusal)?;
        Ok(Response::new(api::UpdateConnectionsResponse {}))
    }

    async fn change_state(
        &self,
        request: Request<api::ChangeStateRequest>,
    ) -> Result<Response<api::ChangeStateResponse>, Status> {
        let asker = self.asker(&request).await?;
        let asked = request.into_inner();
        let id = parse("thing_id", &asked.thing_id)?;
        let changed = self.bootstrap.change_state(&asker, id, state(asked.state)?);
        changed.await.map_err(refusal)?;
        Ok(Response::new(api::ChangeStateResponse {}))
    }

    async fn remove_config(
        &self,
        request: Request<api::RemoveConfigRequest>,
    ) -> Result<Response<api::RemoveConfigResponse>, Status> {
        let asker = self.asker(&request).await?;
        let id = parse("thing_id", &request.into_inner().thing_id)?;
        self.bootstrap.remove(&asker, id).await.map_err(refusal)?;
        Ok(Response::new(api::RemoveConfigResponse {}))
    }

    async fn fetch(
        &self,
        request: Request<api::FetchRequest>,
    ) -> Result<Response<api::Provision>, Status> {
        let from = self.origin(&request);
        let asked = request.into_inner();
        let (id, key) = (asked.external_id, Secret::new(asked.external_key));
        let fetched = self.bootstrap.fetch(&from, &id, &key).await;
        Ok(Response::new(provision(fetched.map_err(refusal)?)))
    }

    async fn fetch_secure(
        &self,
        request: Request<api::FetchRequest>,
    ) -> Result<Response<api::FetchSecureResponse>, Status> {
        let from = self.origin(&request);
        let asked = request.into_inner();
        let (id, key) = (asked.external_id, Secret::new(asked.external_key));
        let fetched = self.bootstrap.fetch_secure(&from, &id, &key).await;
        let sealed = fetched.map_err(refusal)?;
        Ok(Response::new(api::FetchSecureResponse { sealed }))
    }
}

fn state(number: i32) -> Result<State, Status> {
    State::from_number(number.into()).map_err(refusal)
}

fn certificates(texts: Option<api::Certificates>) -> Certificates {
    let texts = texts.unwrap_or_default();
    Certificates {
        client_cert: texts.client_cert,
        client_key: Secret::new(texts.client_key),
        ca_cert: texts.ca_cert,
    }
}

fn config(config: Config) -> api::Config {
    api::Config {
        thing_id: config.thing.to_string(),
        thing_key: config.thing_key.map(|key| key.expose().to_owned()),
        owner_id: config.owner.to_string(),
        external_id: config.external_id,
        external_key: config.external_key.expose().to_owned(),
        name: config.name,
        content: config.content,
        certificates: Some(api::Certificates {
            client_cert: config.certificates.client_cert,
            client_key: String::new(),
            ca_cert: config.certificates.ca_cert,
        }),
        state: config.state.number().into(),
        channels: config.channels.into_iter().map(channel).collect(),
    }
}

fn channel(copy: ChannelCopy) -> api::Channel {
    api::Channel {
        id: copy.id.to_string(),
        name: copy.name,
        metadata: json(copy.metadata),
    }
}

fn provision(provision: Provision) -> api::Provision {
    api::Provision {
        thing_id: provision.thing.to_string(),
        thing_key: provision.thing_key.expose().to_owned(),
        channels: provision.channels.into_iter().map(channel).collect(),
        content: provision.content,
        certificates: Some(api::Certificates {
            client_cert: provision.client_cert,
            client_key: provision.client_key.expose().to_owned(),
            ca_cert: provision.ca_cert,
        }),
    }
}
