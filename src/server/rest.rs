//! The services with a REST interface of their own.

use std::net::SocketAddr;
use std::sync::Arc;

use rollcall_http::{About, Metrics, Site};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::services::Services;
use super::{Role, listen};
use crate::config::Config;

pub(super) struct Rest {
    role: Role,
    listener: TcpListener,
}

/// Listens for those that are here and have an address.
pub(super) async fn open(role: Role, config: &rollcall_http::Config) -> anyhow::Result<Vec<Rest>> {
    let mut sites = Vec::new();
    for (part, address) in [
        (Role::Users, config.users),
        (Role::Things, config.things),
        (Role::Bootstrap, config.bootstrap),
    ] {
        let Some(address) = address.filter(|_| role.has(part)) else {
            continue;
        };
        let what = format!("{} over HTTP", part.name());
        let listener = listen(address, &what, &key(part)).await?;
        sites.push(Rest {
            role: part,
            listener,
        });
    }
    Ok(sites)
}

impl Rest {
    /// Where it listens, by its key such as `http.things`.
    pub(super) fn address(&self) -> std::io::Result<(String, SocketAddr)> {
        Ok((key(self.role), self.listener.local_addr()?))
    }

    /// What is served; `None` if the service is not here.
    pub(super) fn site(
        self,
        config: &Config,
        services: &Services,
        metrics: Metrics,
        stops: watch::Receiver<bool>,
    ) -> Option<(TcpListener, Site)> {
        let about = About {
            service: self.role.name(),
            instance: config.instance.clone(),
            commit: env!("COMMIT_OF_BUILD"),
            build_time: env!("TIME_OF_BUILD"),
            metrics,
            stops,
        };
        let site = match self.role {
            Role::Users => Site::Users(rollcall_http::Users {
                users: services.users.clone()?,
                groups: services.groups.clone()?,
                identities: Arc::clone(&services.users_callers),
                about,
            }),
            Role::Things => {
                let things = services.things.clone()?;
                Site::Things(rollcall_http::Things {
                    things,
                    identities: Arc::clone(&services.identities),
                    about,
                })
            }
            Role::Bootstrap => Site::Bootstrap(rollcall_http::Bootstrap {
                bootstrap: services.bootstrap.clone()?,
                identities: Arc::clone(&services.identities),
                about,
            }),
            Role::All | Role::Mqtt => return None,
        };
        Some((self.listener, site))
    }
}

fn key(role: Role) -> String {
    format!("http.{}", role.name())
}
