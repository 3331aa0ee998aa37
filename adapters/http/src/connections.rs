//! Connections of the HTTP edge: so many at one time, each for so long, and no patience with the slow.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use rollcall_domain::origin::Proxies;
use rollcall_tls::server::Certificates;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Config;

/// How long to leave a listener alone that cannot accept (no more files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end, and who may ask for others, in the extensions of each request.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    pub(crate) proxies: Arc<Proxies>,
}

/// Serves until `stop` is true, and then what has been asked for.
pub(crate) async fn serve(
    config: &Config,
    certificates: Option<Arc<Certificates>>,
    listener: TcpListener,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let turned_away = "rollcall_http_connections_turned_away_total";
    describe_counter!(
        turned_away,
        "HTTP connections closed unread because there were http.max_connections"
    );
    describe_gauge!(
        "rollcall_http_connections",
        "HTTP connections that are open"
    );
    let timed_out = "rollcall_http_connections_timed_out_total";
    describe_counter!(
        timed_out,
        "HTTP connections closed because the head of a request did not come in time"
    );
    let refused = "rollcall_http_handshake_failures_total";
    describe_counter!(
        refused,
        "HTTP connections closed because TLS failed: clients that do not trust the server, or have no certificate"
    );
    let (turned_away, timed_out) = (counter!(turned_away), counter!(timed_out));
    let refused = counter!(refused);
    let open = gauge!("rollcall_http_connections");
    let proxies = Arc::new(config.trusted_proxies.clone());
    let slots = Arc::new(Semaphore::new(config.max_connections));
    let mut conversations = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = conversations.join_next(), if !conversations.is_empty() => continue,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, address) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            turned_away.increment(1);
            continue;
        };
        let (open, router, stop) = (open.clone(), router.clone(), stop.clone());
        let proxies = Arc::clone(&proxies);
        let router = router.layer(Extension(Peer { address, proxies }));
        let (config, timed_out) = (config.clone(), timed_out.clone());
        let (certificates, refused) = (certificates.clone(), refused.clone());
        open.increment(1.0);
        conversations.spawn(async move {
            match receive(&config, certificates, stream, router, stop).await {
                End::Usual => {}
                End::TimedOut => timed_out.increment(1),
                End::Refused => refused.increment(1),
            }
            open.decrement(1.0);
            drop(slot);
        });
    }
    drop(listener);
    while conversations.join_next().await.is_some() {}
}

enum End {
    Usual,
    /// The handshake, or the head of a request, did not come.
    TimedOut,
    /// TLS failed.
    Refused,
}

/// Serves one client, over TLS if there are certificates.
async fn receive(
    config: &Config,
    certificates: Option<Arc<Certificates>>,
    stream: TcpStream,
    router: Router,
    stop: watch::Receiver<bool>,
) -> End {
    let ended = match certificates {
        None => converse(config, stream, router, stop).await,
        Some(certificates) => {
            let accepting = rollcall_tls::accept(certificates.current(), stream);
            match timeout(config.header_timeout, accepting).await {
                Ok(Ok(stream)) => converse(config, stream, router, stop).await,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "an HTTP client has failed at TLS");
                    return End::Refused;
                }
                Err(_) => return End::TimedOut,
            }
        }
    };
    match ended {
        Err(error) if error.is_timeout() => End::TimedOut,
        _ => End::Usual,
    }
}

/// Answers one client until it goes, is too slow, or has been here for long enough.
async fn converse(
    config: &Config,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        // Runs while the client is silent between requests, too.
        .header_read_timeout(config.header_timeout)
        .max_buf_size(config.max_head())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut conversation = pin!(conversation);
    tokio::select! {
        ended = conversation.as_mut() => return ended,
        _ = stop.wait_for(|stop| *stop) => {}
        () = sleep(config.max_connection_age) => {}
    }
    // What was asked is answered.
    conversation.as_mut().graceful_shutdown();
    timeout(config.timeout, conversation)
        .await
        .unwrap_or(Ok(()))
}
