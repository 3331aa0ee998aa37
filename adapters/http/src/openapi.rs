//! What all services over HTTP have: `/health`, `/metrics`, and `/openapi.json`, made from the types of handlers.

use std::sync::Arc;

use aide::axum::ApiRouter;
use aide::generate::{GenContext, in_context};
use aide::openapi::{
    Header, HeaderStyle, OpenApi, Operation, Parameter, ParameterData, ParameterSchemaOrContent,
    PathStyle, ReferenceOr, Response, SchemaObject, SecurityScheme, StatusCode,
};
use aide::operation::add_parameters;
use aide::transform::TransformOperation;
use axum::Router;
use axum::http::{self, header};
use axum::response::IntoResponse;
use axum::routing::get;
use indexmap::IndexMap;
use serde_json::json;
use tokio::sync::watch;

use crate::{Metrics, problem};

/// Names of security schemes.
pub(crate) const BEARER: &str = "token";
pub(crate) const THING_KEY: &str = "thing key";

/// What a service says of itself.
#[derive(Clone)]
pub struct About {
    /// Such as `things`.
    pub service: &'static str,
    /// The name of this instance.
    pub instance: String,
    /// The commit it was built from, and when that was made; empty if it was built elsewhere than in its repository.
    pub commit: &'static str,
    pub build_time: &'static str,
    pub metrics: Metrics,
    /// True from the moment on that it stops.
    pub stops: watch::Receiver<bool>,
}

/// The service with what all have.
pub(crate) fn finish(about: About, service: ApiRouter) -> Router {
    let About {
        service: name,
        instance,
        commit,
        build_time,
        metrics,
        stops,
    } = about;
    let mut document = OpenApi::default();
    let router = service.finish_api_with(&mut document, |document| {
        document
            .title(&format!("rollcall {name}"))
            .version(env!("CARGO_PKG_VERSION"))
            .security_scheme(
                BEARER,
                SecurityScheme::Http {
                    scheme: "bearer".into(),
                    bearer_format: Some("JWT".into()),
                    description: Some("`Authorization: Bearer <token>`".into()),
                    extensions: IndexMap::new(),
                },
            )
            .security_scheme(
                THING_KEY,
                SecurityScheme::ApiKey {
                    location: aide::openapi::ApiKeyLocation::Header,
                    name: "Authorization".into(),
                    description: Some("`Authorization: Thing <key>`".into()),
                    extensions: IndexMap::new(),
                },
            )
    });
    let document = serde_json::to_string(&document).expect("invariant: a document is JSON");
    let document: Arc<str> = document.into();
    let health = |status| {
        let health = json!({
            "status": status,
            "version": env!("CARGO_PKG_VERSION"),
            "commit": commit,
            "description": format!("{name} service"),
            "build_time": build_time,
            "instance_id": instance,
        });
        Arc::<str>::from(health.to_string())
    };
    let (well, ill) = (health("pass"), health("fail"));
    let health = async move || {
        let (code, health) = match *stops.borrow() {
            false => (http::StatusCode::OK, &well),
            true => (http::StatusCode::SERVICE_UNAVAILABLE, &ill),
        };
        (code, said("application/health+json", health))
    };
    router
        .route(
            "/openapi.json",
            get(async move || said("application/json", &document)),
        )
        .route("/health", get(health))
        .route("/metrics", get(async move || metrics.page()))
}

fn said(kind: &'static str, text: &str) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, kind)], text.to_owned())
}

/// The name of an operation, one word in the document, what it does, and how that may be refused; how a request may be
/// that cannot be read, and what all may answer, it knows of its parts.
pub(crate) fn is<const N: usize>(
    id: &'static str,
    summary: &'static str,
    refusals: [u16; N],
) -> impl for<'t> FnOnce(TransformOperation<'t>) -> TransformOperation<'t> {
    move |operation| {
        let mut operation = operation.id(id).summary(summary);
        let described = in_context(|context| {
            let operation = operation.inner_mut();
            refusals.map(|status| problem::described(context, operation, status))
        });
        let responses = operation.inner_mut().responses.get_or_insert_default();
        for (status, response) in described {
            let status = StatusCode::Code(status.unwrap_or_default());
            responses
                .responses
                .insert(status, ReferenceOr::Item(response));
        }
        operation
    }
}

pub(crate) fn require(operation: &mut Operation, scheme: &str) {
    let required = IndexMap::from_iter([(scheme.to_owned(), Vec::new())]);
    if !operation.security.contains(&required) {
        operation.security.push(required);
    }
}

pub(crate) fn path_parameters(context: &mut GenContext, operation: &mut Operation, names: &[&str]) {
    let parameters: Vec<Parameter> = names
        .iter()
        .map(|name| Parameter::Path {
            parameter_data: text(context, name),
            style: PathStyle::Simple,
        })
        .collect();
    add_parameters(context, operation, parameters);
}

/// An answer says where to find what was made.
pub(crate) fn location(context: &mut GenContext, response: &mut Response) {
    let header = Header {
        description: Some("where it is".to_owned()),
        style: HeaderStyle::Simple,
        required: true,
        deprecated: None,
        format: text(context, "Location").format,
        example: None,
        examples: IndexMap::new(),
        extensions: IndexMap::new(),
    };
    response
        .headers
        .insert("Location".to_owned(), ReferenceOr::Item(header));
}

fn text(context: &mut GenContext, name: &str) -> ParameterData {
    ParameterData {
        name: name.to_owned(),
        description: None,
        required: true,
        deprecated: None,
        format: ParameterSchemaOrContent::Schema(SchemaObject {
            json_schema: context.schema.subschema_for::<String>(),
            external_docs: None,
            example: None,
        }),
        example: None,
        examples: IndexMap::new(),
        explode: None,
        extensions: IndexMap::new(),
    }
}
