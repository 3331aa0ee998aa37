//! The HTTP edge: REST by subject, and the pages: is it alive, is it ready, what does it count, who is here.

mod bootstrap;
mod connections;
mod openapi;
mod pages;
mod presence;
mod problem;
mod query;
mod reply;
mod request;
mod things;
mod users;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytesize::ByteSize;
use metrics::{counter, describe_counter};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use rollcall_domain::origin::Proxies;
use rollcall_domain::setting::{address, address_or_empty};
use rollcall_tls::server::Certificates;
use rollcall_tls::{CertificateError, Edge};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use bootstrap::Service as Bootstrap;
pub use openapi::About;
pub use pages::{Front, Pages, Readiness};
pub use presence::Presence;
pub use things::Service as Things;
pub use users::Service as Users;

/// Collected measurements are condensed this often, so that they do not grow between two looks at them.
const UPKEEP: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Where the users service is served; `None` for nowhere. So the others.
    #[serde(deserialize_with = "address_or_empty")]
    pub users: Option<SocketAddr>,
    #[serde(deserialize_with = "address_or_empty")]
    pub things: Option<SocketAddr>,
    #[serde(deserialize_with = "address_or_empty")]
    pub bootstrap: Option<SocketAddr>,
    /// The largest body of a request.
    pub max_body: ByteSize,
    /// Connections at one time; later ones are closed unread.
    pub max_connections: usize,
    /// From accept, or the last answer, to a complete head of a request.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// The largest head of a request.
    pub max_request_head: ByteSize,
    /// From the head of a request to its answer; its body comes meanwhile.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How long a connection may last, whatever it does.
    #[serde(with = "humantime_serde")]
    pub max_connection_age: Duration,
    /// Whose word is taken on whom they ask for.
    pub trusted_proxies: Proxies,
    pub tls: Edge,
}

/// What HTTP is called in ALPN.
const HTTP: &[u8] = b"http/1.1";

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
            (self.timeout.is_zero(), "http.timeout", "longer than 0s"),
            (
                self.max_connection_age.is_zero(),
                "http.max_connection_age",
                "longer than 0s",
            ),
        ]
        .into_iter()
        .find_map(|(wrong, key, problem)| wrong.then_some((key, problem)))
    }

    /// The certificates that are served with; `None` without TLS.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn certificates(&self) -> Result<Option<Arc<Certificates>>, CertificateError> {
        self.tls.read("http.tls", HTTP)
    }

    /// Takes any free port for every service that is on its usual one, if that of the pages is any: who does so has
    /// several servers on this machine, and the usual ports are for none of them.
    pub fn settle_ports(&mut self) {
        const USUAL: [u16; 3] = [9002, 9000, 9013];
        if self.listen.port() != 0 {
            return;
        }
        let services = [&mut self.users, &mut self.things, &mut self.bootstrap];
        for (service, usual) in services.into_iter().zip(USUAL) {
            if let Some(address) = service.as_mut().filter(|it| it.port() == usual) {
                address.set_port(0);
            }
        }
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

    pub(crate) fn page(&self) -> Response {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], self.0.render()).into_response()
    }

    /// Condenses what was collected, now and then, until `stop` is true.
    pub async fn keep_up(self, mut stop: watch::Receiver<bool>) {
        let upkeep = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                self.0.run_upkeep();
            }
        };
        tokio::select! {
            () = upkeep => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

/// What is served at one address.
pub enum Site {
    Pages(Pages),
    Users(Users),
    Things(Things),
    Bootstrap(Bootstrap),
}

/// Serves until `stop` is true; over TLS, if there are certificates.
pub async fn serve(
    config: &Config,
    certificates: Option<Arc<Certificates>>,
    listener: TcpListener,
    site: Site,
    stop: watch::Receiver<bool>,
) {
    let router = match site {
        Site::Pages(pages) => pages::router(pages),
        Site::Users(users) => users::router(users),
        Site::Things(things) => things::router(things),
        Site::Bootstrap(bootstrap) => bootstrap::router(bootstrap),
    };
    let max_body = usize::try_from(config.max_body.as_u64()).unwrap_or(usize::MAX);
    let timed_out = "rollcall_http_requests_timed_out_total";
    describe_counter!(
        timed_out,
        "HTTP requests whose body did not come, or whose answer was not found, in time"
    );
    let (timed_out, patience) = (counter!(timed_out), config.timeout);
    let in_time = middleware::from_fn(move |request: Request, next: Next| {
        let timed_out = timed_out.clone();
        async move {
            let answered = tokio::time::timeout(patience, next.run(request)).await;
            answered.unwrap_or_else(|_| {
                timed_out.increment(1);
                problem::Problem::too_slow().into_response()
            })
        }
    });
    let router = router
        .fallback(async || problem::Problem::not_found("no such page"))
        .method_not_allowed_fallback(async || problem::Problem::method())
        .layer(DefaultBodyLimit::max(max_body))
        .layer(Extension(presence::Stopping(stop.clone())))
        .layer(in_time);
    connections::serve(config, certificates, listener, router, stop).await;
}
