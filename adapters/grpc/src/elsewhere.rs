//! Servers elsewhere: whose address it is, and how they are reached.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use rollcall_tls::client::{Connector, Settings, Stream};
use rollcall_tls::{CertificateError, Report};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use crate::{CLIENT, H2};

/// How often it is told that a server cannot be reached for the same reason.
const AGAIN: Duration = Duration::from_secs(60);

/// A server elsewhere cannot be asked as it is set.
#[derive(Debug, thiserror::Error)]
pub enum ElsewhereError {
    #[error("{0:?} is no address of a server: write http://host:7000, or https://host:7000")]
    Url(String),
    #[error(transparent)]
    Certificates(#[from] CertificateError),
}

/// Whether calls can go there: `http://host:7000`, or https.
#[must_use]
pub fn is_address(url: &str) -> bool {
    parse(url).is_some()
}

/// Whether what goes there could be read on its way.
#[must_use]
pub fn is_in_clear(url: &str) -> bool {
    parse(url).is_some_and(|uri| {
        let host = host(&uri);
        let here = host.parse::<IpAddr>().map(|it| it.is_loopback());
        !is_https(&uri) && !here.unwrap_or(host == "localhost")
    })
}

fn parse(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let of_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let nobody = !uri.authority()?.as_str().contains('@');
    (of_http && bare && nobody).then_some(uri)
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// Without brackets.
fn host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}

/// A channel that connects when it is used first, and again whenever need be. `timeout` bounds each call, and connecting.
pub(crate) fn lazy(
    url: &str,
    timeout: Duration,
    tls: &Settings,
) -> Result<Channel, ElsewhereError> {
    let uri = parse(url).ok_or_else(|| ElsewhereError::Url(url.to_owned()))?;
    let endpoint = Endpoint::from(uri.clone());
    let endpoint = endpoint.timeout(timeout).connect_timeout(timeout);
    Ok(match is_https(&uri) {
        true => endpoint.connect_with_connector_lazy(Secured::new(tls, logged(url))?),
        false => endpoint.connect_lazy(),
    })
}

/// Logs what is wrong, unless it was said a moment ago.
fn logged(server: &str) -> Report {
    let server = server.to_owned();
    let told: Mutex<Option<(String, Instant)>> = Mutex::default();
    Arc::new(move |words| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let known = told.as_ref();
        if known.is_none_or(|(said, since)| *said != words || since.elapsed() > AGAIN) {
            tracing::warn!(server, error = words, "cannot ask a server over TLS");
            *told = Some((words.to_owned(), Instant::now()));
        }
    })
}

/// What was wrong with TLS last.
#[derive(Clone, Default)]
pub(crate) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    pub(crate) fn words(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn noted(&self) -> Report {
        let this = self.clone();
        Arc::new(move |words| {
            let mut noted = this.0.lock().unwrap_or_else(PoisonError::into_inner);
            *noted = Some(words.to_owned());
        })
    }
}

/// A channel that is connected.
pub(crate) async fn connect(
    url: &str,
    tls: &Settings,
    trouble: &Trouble,
) -> Result<Channel, ConnectError> {
    let uri = parse(url).ok_or_else(|| ElsewhereError::Url(url.to_owned()))?;
    let endpoint = Endpoint::from(uri.clone());
    let connected = match is_https(&uri) {
        true => {
            let secured = Secured::new(tls, trouble.noted())?;
            endpoint.connect_with_connector(secured).await
        }
        false => endpoint.connect().await,
    };
    connected.map_err(ConnectError::Unreachable)
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Elsewhere(#[from] ElsewhereError),
    #[error("cannot connect")]
    Unreachable(#[source] tonic::transport::Error),
}

/// What is at the bottom of an error.
pub(crate) fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    chain(error).last().unwrap_or(error)
}

/// Whether a call was given up here because its connection has ended.
pub(crate) fn was_cut_off(error: &(dyn Error + 'static)) -> bool {
    chain(error)
        .filter_map(|it| it.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_canceled)
}

/// An error, its cause, the cause of that, and so on.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |it: &&'a (dyn Error + 'static)| (*it).source())
}

/// Connects over TLS.
#[derive(Clone)]
struct Secured(Arc<Connector>);

impl Secured {
    fn new(tls: &Settings, report: Report) -> Result<Self, ElsewhereError> {
        let connector = Connector::new(CLIENT, tls.clone(), H2, report)?;
        Ok(Self(Arc::new(connector)))
    }
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

impl Service<Uri> for Secured {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let connector = Arc::clone(&self.0);
        Box::pin(async move {
            let port = uri.port_u16().unwrap_or(443);
            connector.connect(host(&uri), port).await.map(TokioIo::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_and_a_host() {
        for (url, is_one, in_clear) in [
            ("http://things:7000", true, true),
            ("http://10.0.0.1:7000/", true, true),
            ("https://things:7000", true, false),
            ("http://localhost:7000", true, false),
            ("http://127.0.0.1:7000", true, false),
            ("http://[::1]:7000", true, false),
            ("http://[fe80::1]:7000", true, true),
            ("things:7000", false, false),
            ("things", false, false),
            ("redis://things:7000", false, false),
            ("http://joe:s3cret@things:7000", false, false),
            ("http://things:7000/api", false, false),
            ("http://", false, false),
            ("", false, false),
        ] {
            assert_eq!(is_address(url), is_one, "{url}");
            assert_eq!(is_in_clear(url), in_clear, "{url}");
        }
    }
}
