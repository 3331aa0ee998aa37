//! The REST interface of the bootstrap service, as clients of the platform know it.

use std::sync::Arc;

use aide::OperationInput;
use aide::axum::ApiRouter;
use aide::axum::routing::{get_with, patch_with, post_with, put_with};
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::extract::{FromRequestParts, State as Shared};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Json, Router};
use rollcall_domain::bootstrap::{
    Asker, Bootstrap, Certificates, ChannelCopy, Config, Filter, NewConfig, Provision, State,
};
use rollcall_domain::caller::Identities;
use rollcall_domain::identity::{Secret, ThingId};
use rollcall_domain::listing::Page;
use rollcall_domain::refusal::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::openapi::{About, finish, is};
use crate::problem::{Problem, described};
use crate::query::{MAX_PAGE, Query, usual_limit, word};
use crate::reply::{Done, Reply};
use crate::request::{
    Bearer, Body, HasIdentities, Id, Ids, Origin, ThingKey, Token, given, or_default, parse_all,
    unless_empty,
};

#[derive(Clone)]
pub struct Service {
    pub bootstrap: Arc<Bootstrap>,
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
        .api_route(
            "/things/configs",
            post_with(add, is("addConfig", "makes a configuration", [404, 409]))
                .get_with(list, is("listConfigs", "lists configurations", [])),
        )
        .api_route(
            "/things/configs/{id}",
            get_with(view, is("viewConfig", "shows a configuration", [404]))
                .put_with(
                    update,
                    is("updateConfig", "sets name and content", [404, 429]),
                )
                .delete_with(remove, is("removeConfig", "removes a configuration", [429])),
        )
        .api_route(
            "/things/configs/certs/{id}",
            patch_with(
                update_certificates,
                is(
                    "updateConfigCerts",
                    "sets certificates and private key",
                    [404, 429],
                ),
            ),
        )
        .api_route(
            "/things/configs/connections/{id}",
            put_with(
                update_connections,
                is(
                    "updateConfigConnections",
                    "sets the channels",
                    [403, 404, 429],
                ),
            ),
        )
        .api_route(
            "/things/state/{id}",
            put_with(
                change_state,
                is(
                    "changeState",
                    "connects a thing to its channels, or not",
                    [403, 404, 429],
                ),
            ),
        )
        .api_route(
            "/things/bootstrap/{external_id}",
            get_with(
                fetch,
                is("bootstrap", "gives a device what it needs", [403, 404, 429]),
            ),
        )
        .api_route(
            "/things/bootstrap/secure/{external_id}",
            get_with(
                fetch_secure,
                is(
                    "bootstrapSecure",
                    "gives a device what it needs, encrypted",
                    [403, 404, 429],
                ),
            ),
        )
        .with_state(service);
    finish(about, router)
}

/// The caller, with the token.
struct Asking(Asker);

impl FromRequestParts<Service> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Service) -> Result<Self, Problem> {
        let Token(token) = Token::from_request_parts(parts, state).await?;
        let caller = state.identities.caller(&token).await?;
        Ok(Self(Asker { caller, token }))
    }
}

impl OperationInput for Asking {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        Bearer::operation_input(context, operation);
    }

    fn inferred_early_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        Bearer::inferred_early_responses(context, operation)
    }
}

/// The key that a device shows.
struct ExternalKey(Secret);

impl FromRequestParts<Service> for ExternalKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Service) -> Result<Self, Problem> {
        let key = ThingKey::from_request_parts(parts, state).await;
        key.map(|ThingKey(key)| Self(key))
            .map_err(|_| Refusal::Unauthenticated.into())
    }
}

impl OperationInput for ExternalKey {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        ThingKey::operation_input(context, operation);
    }

    fn inferred_early_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        vec![described(context, operation, 401)]
    }
}

#[derive(Deserialize, JsonSchema)]
struct Addition {
    external_id: String,
    external_key: String,
    /// Empty to have a thing made.
    #[serde(default)]
    thing_id: Option<String>,
    /// Ids.
    #[serde(default, deserialize_with = "or_default")]
    channels: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    content: String,
    #[serde(flatten)]
    certificates: Pems,
}

#[derive(Deserialize, JsonSchema)]
struct Pems {
    #[serde(default, deserialize_with = "or_default")]
    client_cert: String,
    #[serde(default, deserialize_with = "or_default")]
    client_key: String,
    #[serde(default, deserialize_with = "or_default")]
    ca_cert: String,
}

impl From<Pems> for Certificates {
    fn from(pems: Pems) -> Self {
        Self {
            client_cert: pems.client_cert,
            client_key: Secret::new(pems.client_key),
            ca_cert: pems.ca_cert,
        }
    }
}

async fn add(
    Shared(service): Shared<Service>,
    Asking(asker): Asking,
    Body(addition): Body<Addition>,
) -> Reply<CreatedAt> {
    let new = NewConfig {
        thing: given("thing_id", addition.thing_id)?,
        external_id: addition.external_id,
        external_key: Secret::new(addition.external_key),
        name: addition.name,
        content: addition.content,
        certificates: addition.certificates.into(),
        channels: parse_all("channels", &addition.channels)?,
    };
    let id = service.bootstrap.add(&asker, new).await?;
    Ok(CreatedAt(id))
}

/// 201, where it is, and no body.
struct CreatedAt(ThingId);

impl IntoResponse for CreatedAt {
    fn into_response(self) -> axum::response::Response {
        let location = [(header::LOCATION, format!("/things/configs/{}", self.0))];
        (StatusCode::CREATED, location).into_response()
    }
}

impl aide::OperationOutput for CreatedAt {
    type Inner = ();

    fn inferred_responses(
        context: &mut GenContext,
        _: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        let mut described = Described {
            description: "no body".to_owned(),
            ..Described::default()
        };
        crate::openapi::location(context, &mut described);
        vec![(Some(201), described)]
    }
}

async fn view(
    Shared(service): Shared<Service>,
    Asking(asker): Asking,
    Id(id): Id<ThingId>,
) -> Reply<Json<ConfigView>> {
    let config = service.bootstrap.view(&asker, id).await?;
    let channels = Some(config.channels.iter().map(ChannelView::new).collect());
    let view = ConfigView::new(config);
    Ok(Json(ConfigView { channels, ..view }))
}

#[derive(Deserialize, JsonSchema)]
struct ConfigQuery {
    /// How many entries to leave out.
    #[serde(default, deserialize_with = "offset")]
    offset: u64,
    /// How many entries at most.
    #[serde(default = "usual_limit", deserialize_with = "limit")]
    #[schemars(range(min = 0, max = 100))]
    limit: u64,
    /// 0 for inactive, 1 for active.
    #[serde(default, deserialize_with = "state")]
    #[schemars(with = "Option<u8>")]
    state: Option<i64>,
    external_id: Option<String>,
    thing_id: Option<String>,
    thing_key: Option<String>,
    /// A part of it, in capitals or not.
    name: Option<String>,
}

fn offset<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    word("offset", input)
}

fn limit<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    match word("limit", input)? {
        limit @ 0..=MAX_PAGE => Ok(limit),
        _ => Err(serde::de::Error::custom("limit: from 0 to 100")),
    }
}

fn state<'de, D: Deserializer<'de>>(input: D) -> Result<Option<i64>, D::Error> {
    word("state", input).map(Some)
}

async fn list(
    Shared(service): Shared<Service>,
    Asking(asker): Asking,
    Query(query): Query<ConfigQuery>,
) -> Reply<Json<ConfigPage>> {
    let page = Page {
        offset: query.offset,
        limit: query.limit,
    };
    let filter = Filter {
        state: query.state.map(State::from_number).transpose()?,
        external_id: unless_empty(query.external_id),
        thing: given("thing_id", query.thing_id)?,
        thing_key: unless_empty(query.thing_key).map(Secret::new),
        name: unless_empty(query.name),
    };
    let listing = service.bootstrap.list(&asker, filter, page).await?;
    Ok(Json(ConfigPage {
        total: listing.total,
        offset: page.offset,
        limit: page.limit,
        configs: listing.items.into_iter().map(ConfigView::new).collect(),
    }))
}

#[derive(Serialize, JsonSchema)]
struct ConfigPage {
    total: u64,
    offset: u64,
    limit: u64,
    configs: Vec<ConfigView>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Config")]
struct ConfigView {
    thing_id: String,
    /// Not there if the things service does not show it any longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    thing_key: Option<String>,
    /// Lists leave them out.
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<Vec<ChannelView>>,
    external_id: String,
    external_key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    content: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    /// 0 for inactive, 1 for active.
    state: u8,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_cert: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ca_cert: String,
}

impl ConfigView {
    /// Without channels.
    fn new(config: Config) -> Self {
        Self {
            thing_id: config.thing.to_string(),
            thing_key: config.thing_key.map(|key| key.expose().to_owned()),
            channels: None,
            external_id: config.external_id,
            external_key: config.external_key.expose().to_owned(),
            content: config.content,
            name: config.name,
            state: config.state.number(),
            client_cert: config.certificates.client_cert,
            ca_cert: config.certificates.ca_cert,
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ConfigChannel")]
struct ChannelView {
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    metadata: Map<String, Value>,
}

impl ChannelView {
    fn new(copy: &ChannelCopy) -> Self {
        Self {
            id: copy.id.to_string(),
            name: copy.name.clone(),
            metadata: copy.metadata.clone(),
        }
    }
}

/// What is absent is cleared.
#[derive(Deserialize, JsonSchema)]
struct NameAndContent {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    content: String,
}

async fn update(
    Shared(service): Shared<Service>,
    Asking(asker): Asking,
    Id(id): Id<ThingId>,
    Body(NameAndContent { name, content }): Body<NameAndContent>,
) -> Reply<Done<200>> {
    service.bootstrap.update(&asker, id, name, content).await?;
    Ok(Done)
}

async fn remove(
    Shared(service): Shared<Service>,
    Asking(asker): Asking,
    Id(id): Id<ThingId>,
) -> Reply<Done<204>> {
    service.bootstrap.remove(&asker, id).await?;
    Ok(Done)
}

#[derive(Serialize, JsonSchema)]
struct CertificatesView {
    thing_id: String,
    client_cert: String,
    ca_cert: String,
    client_key: String,
}

async fn update_certificates(
    Shared(service): Shared<Service>,
    Asking(asker): Asking,
    Id(id): Id<ThingId>,
    Body(pems): Body<Pems>,
) -> Reply<Json<CertificatesView>> {
    let updated = service.bootstrap;
    let updated = updated.update_certificates(&asker, id, pems.into()).await?;
    Ok(Json(CertificatesView {
        thing_id: id.to_string(),
        client_cert: updated.client_cert,
        ca_cert: updated.ca_cert,
        client_key: updated.client_key.expose().to_owned(),
    }))
}

#[derive(Deserialize, JsonSchema)]
struct Channels {
    /// Ids.
    #[serde(deserialize_with = "or_default")]
    channels: Vec<String>,
}

async fn update_connections(
    Shared(service): Shared<Service>,
    Asking(asker): Asking,
    Id(id): Id<ThingId>,
    Body(Channels { channels }): Body<Channels>,
) -> Reply<Done<200>> {
    let channels = parse_all("channels", &channels)?;
    let bootstrap = service.bootstrap;
    bootstrap.update_connections(&asker, id, &channels).await?;
    Ok(Done)
}

#[derive(Deserialize, JsonSchema)]
struct StateNumber {
    /// 0 for inactive, 1 for active. The SDK of the platform leaves a zero out.
    #[serde(default, deserialize_with = "or_default")]
    state: i64,
}

async fn change_state(
    Shared(service): Shared<Service>,
    Asking(asker): Asking,
    Id(id): Id<ThingId>,
    Body(StateNumber { state }): Body<StateNumber>,
) -> Reply<Done<200>> {
    let state = State::from_number(state)?;
    service.bootstrap.change_state(&asker, id, state).await?;
    Ok(Done)
}

async fn fetch(
    Shared(service): Shared<Service>,
    Origin(from): Origin,
    Ids([external_id]): Ids<1>,
    ExternalKey(key): ExternalKey,
) -> Reply<Json<ProvisionView>> {
    let fetched = service.bootstrap.fetch(&from, &external_id, &key).await?;
    Ok(Json(ProvisionView::new(fetched)))
}

async fn fetch_secure(
    Shared(service): Shared<Service>,
    Origin(from): Origin,
    Ids([external_id]): Ids<1>,
    ExternalKey(key): ExternalKey,
) -> Reply<Vec<u8>> {
    let bootstrap = service.bootstrap;
    let sealed = bootstrap.fetch_secure(&from, &external_id, &key).await?;
    Ok(sealed)
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Provision")]
struct ProvisionView {
    thing_id: String,
    thing_key: String,
    channels: Vec<ChannelView>,
    #[serde(skip_serializing_if = "String::is_empty")]
    content: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_cert: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ca_cert: String,
}

impl ProvisionView {
    fn new(provision: Provision) -> Self {
        Self {
            thing_id: provision.thing.to_string(),
            thing_key: provision.thing_key.expose().to_owned(),
            channels: provision.channels.iter().map(ChannelView::new).collect(),
            content: provision.content,
            client_cert: provision.client_cert,
            client_key: provision.client_key.expose().to_owned(),
            ca_cert: provision.ca_cert,
        }
    }
}
