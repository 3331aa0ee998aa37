//! The HTTP edge: is it alive, is it ready, what does it count, who is here.

mod connections;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytesize::ByteSize;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use rollcall_domain::presence::{Online, Roll};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Collected measurements are condensed this often, so that they do not grow between two looks at them.
const UPKEEP: Duration = Duration::from_secs(5);
/// Sessions of one page of `/presence`.
const MAX_PAGE: usize = 10_000;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: std::net::SocketAddr,
    /// Connections at one time; later ones are closed unread.
    pub max_connections: usize,
    /// From accept, or the last answer, to a complete head of a request.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// The largest head of a request. Bodies are not read.
    pub max_request_head: ByteSize,
    /// How long a connection may last, whatever it does.
    #[serde(with = "humantime_serde")]
    pub max_connection_age: Duration,
}

/// What the parser needs at least.
const LEAST_HEAD: u64 = 8 * 1024;

impl Config {
    /// A value that makes no sense: its key, and what it should be.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        [
            (
                self.max_connections == 0,
                "http.max_connections",
                "at least 1",
            ),
            (
                self.header_timeout.is_zero(),
                "http.header_timeout",
                "longer than 0s",
            ),
            (
                !(LEAST_HEAD..=1 << 20).contains(&self.max_request_head.as_u64()),
                "http.max_request_head",
                "from 8KiB to 1MiB",
            ),
            (
                self.max_connection_age.is_zero(),
                "http.max_connection_age",
                "longer than 0s",
            ),
        ]
        .into_iter()
        .find_map(|(wrong, key, problem)| wrong.then_some((key, problem)))
    }

    fn max_head(&self) -> usize {
        usize::try_from(self.max_request_head.as_u64()).unwrap_or(usize::MAX)
    }
}

/// The counters of the process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Something else collects metrics in this process already.
#[derive(Debug, thiserror::Error)]
#[error("cannot collect metrics")]
pub struct MetricsError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Metrics {
    /// Collects what all rooms count from now on.
    ///
    /// # Errors
    /// Metrics are collected already.
    pub fn install() -> Result<Self, MetricsError> {
        // Seconds of a commit: from what the memory of an operating system takes to a slow disk.
        let buckets = [
            0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0,
        ];
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &buckets)
            .map_err(|error| MetricsError(error.into()))?;
        builder
            .install_recorder()
            .map(Self)
            .map_err(|error| MetricsError(error.into()))
    }
}

/// Says what a ready server lacks; nothing if it lacks nothing.
pub type Readiness = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// What the pages show.
#[derive(Clone)]
pub struct State {
    pub metrics: Metrics,
    pub roll: Arc<dyn Roll>,
    pub readiness: Readiness,
}

/// Serves until `stop` is true.
pub async fn serve(
    config: &Config,
    listener: TcpListener,
    state: State,
    stop: watch::Receiver<bool>,
) {
    let upkeep = {
        let Metrics(metrics) = state.metrics.clone();
        async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                metrics.run_upkeep();
            }
        }
    };
    tokio::select! {
        () = upkeep => {}
        () = connections::serve(config, listener, router(state), stop) => {}
    }
}

fn router(state: State) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/presence", get(presence))
        .fallback(async || {
            problem(
                StatusCode::NOT_FOUND,
                "try /presence, /metrics, /livez, /readyz",
            )
        })
        .method_not_allowed_fallback(async || problem(StatusCode::METHOD_NOT_ALLOWED, "use GET"))
        .with_state(state)
}

fn problem(status: StatusCode, error: &str) -> Response {
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}

async fn ready(Shared(state): Shared<State>) -> Response {
    let lacks = (state.readiness)();
    let status = if lacks.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(serde_json::json!({ "ready": lacks.is_empty(), "lacks": lacks })),
    )
        .into_response()
}

async fn metrics(Shared(state): Shared<State>) -> Response {
    let Metrics(metrics) = state.metrics;
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, metrics.render()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    offset: usize,
    #[serde(default = "default_limit")]
    limit: usize,
}

const fn default_limit() -> usize {
    100
}

#[derive(Serialize)]
struct Presence<'a> {
    instance: &'a str,
    total: usize,
    sessions: Vec<Session>,
}

/// One session that is online.
#[derive(Serialize)]
struct Session {
    session_id: String,
    thing_id: String,
    client_id: String,
    protocol: &'static str,
    peer: String,
    since: String,
    /// Nanoseconds since the Unix epoch, as in the event.
    occurred_at: String,
}

impl From<&Online> for Session {
    fn from(Online { session, since }: &Online) -> Self {
        Self {
            session_id: session.id.to_string(),
            thing_id: session.thing.to_string(),
            client_id: session.client_id.to_string(),
            protocol: session.protocol.as_str(),
            peer: session.peer.to_string(),
            since: since.rfc3339(),
            occurred_at: since.to_string(),
        }
    }
}

async fn presence(
    Shared(state): Shared<State>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let page = match page {
        Ok(Query(page)) if (1..=MAX_PAGE).contains(&page.limit) => page,
        _ => {
            return problem(
                StatusCode::BAD_REQUEST,
                "use ?offset=0&limit=100, at most 10000",
            );
        }
    };
    let online = state.roll.online();
    let sessions = online
        .iter()
        .skip(page.offset)
        .take(page.limit)
        .map(Session::from)
        .collect();
    let instance = state.roll.instance();
    Json(Presence {
        instance,
        total: online.len(),
        sessions,
    })
    .into_response()
}
