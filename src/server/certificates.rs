//! The certificates of all edges, and what goes without them.

use std::net::SocketAddr;
use std::sync::Arc;

use rollcall_domain::ports::{Reload, Reloaded};
use rollcall_tls::server::Certificates;

use super::Role;
use crate::config::Config;

/// What is read again on a reload.
pub(super) struct AllCertificates {
    front: Option<Arc<dyn Reload>>,
    pub(super) grpc: Option<Arc<Certificates>>,
    pub(super) http: Option<Arc<Certificates>>,
}

impl AllCertificates {
    pub(super) fn read(config: &Config, front: Option<Arc<dyn Reload>>) -> anyhow::Result<Self> {
        Ok(Self {
            front,
            grpc: config.grpc.certificates()?,
            http: config.http.certificates()?,
        })
    }
}

impl Reload for AllCertificates {
    fn reload(&self) -> Reloaded {
        let front = self.front.as_ref();
        let mut reloaded = front.map(|front| front.reload()).unwrap_or_default();
        for (edge, certificates) in [("grpc", &self.grpc), ("http", &self.http)] {
            let Some(certificates) = certificates else {
                continue;
            };
            match certificates.reload() {
                Ok(()) => {
                    tracing::info!(edge, "certificates are read again");
                    reloaded.done.push(edge.to_owned());
                }
                Err(error) => {
                    let why = format!("{:#}", anyhow::Error::new(error));
                    tracing::error!(edge, error = why, "certificates stay");
                    reloaded.failed.push(why);
                }
            }
        }
        reloaded
    }
}

/// Says where passwords, keys and tokens could be read on their way. It is no reason not to start: within one machine of
/// containers, or behind a proxy that ends TLS, addresses do not tell who can listen.
pub(super) fn warn_of_clear_text(config: &Config, role: Role) {
    let (grpc, http) = (&config.grpc, &config.http);
    let listeners = [
        (
            "grpc.listen",
            Some(grpc.listen),
            grpc.tls.is_on(),
            "grpc.tls",
        ),
        (
            "http.listen",
            Some(http.listen),
            http.tls.is_on(),
            "http.tls",
        ),
        ("http.users", http.users, http.tls.is_on(), "http.tls"),
        ("http.things", http.things, http.tls.is_on(), "http.tls"),
        (
            "http.bootstrap",
            http.bootstrap,
            http.tls.is_on(),
            "http.tls",
        ),
    ];
    for (key, address, is_secured, remedy) in listeners {
        let open = address.filter(|address: &SocketAddr| !address.ip().is_loopback());
        if let Some(address) = open.filter(|_| !is_secured) {
            tracing::warn!(
                key, %address, "tokens and keys go in clear to other machines here: see {remedy}"
            );
        }
    }
    for (key, url) in asked(config, role) {
        if rollcall_grpc::is_in_clear(url) {
            tracing::warn!(
                key,
                url,
                "tokens and keys go in clear to another machine: write https://, and see grpc.client"
            );
        }
    }
}

/// The servers that this process asks.
fn asked(config: &Config, role: Role) -> Vec<(&'static str, &str)> {
    let (users, things) = (&config.users.authority, &config.things);
    let mut asked = vec![("users.authority", users.as_str())];
    if role.has(Role::Mqtt) {
        asked.push(("things.authority", &things.authority));
    }
    if role.has(Role::Bootstrap) {
        asked.push(("things.url", &things.url));
    }
    asked
}
