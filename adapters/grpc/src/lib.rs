//! The gRPC edge: the services, and the clients of them.

mod admin;
mod auth;
pub mod authority;
mod bootstrap;
mod caller;
pub mod client;
mod connections;
mod elsewhere;
mod events;
mod groups;
pub mod identities;
mod intake;
pub mod inventory;
mod presence;
mod status;
mod things;
mod user_auth;
mod users;
mod words;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use rollcall_domain::attendance::Overview;
use rollcall_domain::bootstrap::Bootstrap;
use rollcall_domain::caller::Identities;
use rollcall_domain::groups::Groups;
use rollcall_domain::origin::Proxies;
use rollcall_domain::ports::{EventLog, Reload};
use rollcall_domain::presence::{Roll, Sessions};
use rollcall_domain::setting::address;
use rollcall_domain::things::Things;
use rollcall_domain::users::Users;
use rollcall_tls::client::Settings as ClientTls;
use rollcall_tls::server::Certificates;
use rollcall_tls::{CertificateError, Edge};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::caller::ForAdmins;
use crate::connections::Incoming;
use crate::intake::{Intake, Room, SMALL};

pub use elsewhere::{ElsewhereError, is_address, is_in_clear};

/// The messages of `rollcall.v1`.
pub mod api {
    tonic::include_proto!("rollcall.v1");
}

/// The messages of `rollcall.things.v1`. Those that users have too are the same types (`build.rs`).
pub mod things_api {
    tonic::include_proto!("rollcall.things.v1");

    pub use crate::users_api::{
        Group as Channel, GroupFilter as ChannelFilter,
        ListRelatedGroupsRequest as ListRelatedChannelsRequest, Page,
        UpdateGroupRequest as UpdateChannelRequest,
    };
}

/// The messages of `rollcall.users.v1`.
pub mod users_api {
    tonic::include_proto!("rollcall.users.v1");
}

/// The messages of `mainflux.users.policies`.
pub mod user_policies {
    tonic::include_proto!("mainflux.users.policies");
}

/// The messages of `rollcall.bootstrap.v1`.
pub mod bootstrap_api {
    tonic::include_proto!("rollcall.bootstrap.v1");
}

/// The messages of `mainflux.things.policies`.
pub mod policies {
    tonic::include_proto!("mainflux.things.policies");
}

/// Describes all services; what reflection gives out.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Calls of one connection at one time.
    pub max_calls: u32,
    /// From a call to its answer; streams are not bounded.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Connections at one time; later ones are closed unread.
    pub max_connections: usize,
    /// From accept to the first bytes of HTTP/2.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// The largest message of a call.
    pub max_request_size: ByteSize,
    /// What all calls together may bring at one time.
    pub max_receiving: ByteSize,
    /// Whose word is taken on whom they call for.
    pub trusted_proxies: Proxies,
    pub tls: Edge,
    /// How servers elsewhere are asked.
    pub client: ClientTls,
}

/// What gRPC is called in ALPN.
const H2: &[u8] = b"h2";
/// What the settings of clients are called.
const CLIENT: &str = "grpc.client";

impl Config {
    /// A value that makes no sense: its key, and what it should be.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        [
            (self.max_calls == 0, "grpc.max_calls", "at least 1"),
            (
                self.max_connections == 0,
                "grpc.max_connections",
                "at least 1",
            ),
            (self.timeout.is_zero(), "grpc.timeout", "longer than 0s"),
            (
                self.handshake_timeout.is_zero(),
                "grpc.handshake_timeout",
                "longer than 0s",
            ),
            (
                !(1024..=64 << 20).contains(&self.max_request_size.as_u64()),
                "grpc.max_request_size",
                "from 1KiB to 64MiB",
            ),
            (
                self.max_receiving < self.max_request_size,
                "grpc.max_receiving",
                "at least grpc.max_request_size",
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
        self.tls.read("grpc.tls", H2)
    }
}

/// What is served. What this process does not have is left out, and no name of it is known.
#[derive(Clone)]
pub struct Services {
    /// Who calls a service, by the token of the call.
    pub identities: Arc<dyn Identities>,
    /// The same for what concerns this process: administrators may use it.
    pub admins: Arc<dyn Identities>,
    /// Who calls the users service itself.
    pub users_callers: Arc<dyn Identities>,
    pub users: Option<Arc<Users>>,
    pub groups: Option<Arc<Groups>>,
    pub things: Option<Arc<Things>>,
    pub bootstrap: Option<Arc<Bootstrap>>,
    pub front: Option<Front>,
    /// Who is online on all instances, as far as this process can know.
    pub overview: Option<Overview>,
    pub reload: Arc<dyn Reload>,
    pub logs: Vec<Arc<dyn EventLog>>,
}

/// The MQTT front.
#[derive(Clone)]
pub struct Front {
    pub roll: Arc<dyn Roll>,
    pub sessions: Arc<dyn Sessions>,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot describe the services")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("cannot serve gRPC")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves until `stop` is true, and then what has been asked for; over TLS, if there are certificates. Once `stops` is
/// true, whoever asks for health hears that nothing is to be sent here any longer.
///
/// Neither `AuthService` asks for a token: who holds a thing's key, or a user's token or id, may ask about it.
///
/// # Errors
/// The listener is broken.
pub async fn serve(
    config: &Config,
    certificates: Option<Arc<Certificates>>,
    listener: TcpListener,
    services: Services,
    mut stops: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let most = usize::try_from(config.max_request_size.as_u64()).unwrap_or(usize::MAX);
    let admins = services.admins;
    let (health, health_service) = tonic_health::server::health_reporter();
    let mut served = Served {
        routes: RoutesBuilder::default(),
        health,
        names: Vec::new(),
        room: Room::new(config.max_receiving),
    };
    let health_service = health_service.max_decoding_message_size(SMALL);
    served.routes.add_service(health_service);

    if let Some(users) = services.users {
        let auth = user_auth::Auth::new(Arc::clone(&services.identities));
        let auth = user_policies::auth_service_server::AuthServiceServer::new(auth);
        served.add(auth.max_decoding_message_size(most)).await;
        let service = users::Service::new(users, Arc::clone(&services.users_callers));
        let users = users_api::users_server::UsersServer::new(service.clone());
        served.add(users.max_decoding_message_size(most)).await;
        let tokens = users_api::tokens_server::TokensServer::new(service.clone());
        served.add(tokens.max_decoding_message_size(most)).await;
        let passwords = users_api::passwords_server::PasswordsServer::new(service);
        served.add(passwords.max_decoding_message_size(most)).await;
    }
    if let Some(groups) = services.groups {
        let groups = groups::Service::new(groups, Arc::clone(&services.users_callers));
        let policies = users_api::policies_server::PoliciesServer::new(groups.clone());
        served.add(policies.max_decoding_message_size(most)).await;
        let groups = users_api::groups_server::GroupsServer::new(groups);
        served.add(groups.max_decoding_message_size(most)).await;
    }
    if let Some(things) = services.things {
        let auth = auth::Auth::new(Arc::clone(&things));
        let auth = policies::auth_service_server::AuthServiceServer::new(auth);
        served.add(auth.max_decoding_message_size(most)).await;
        let service = things::Service::new(things, Arc::clone(&services.identities));
        let things = things_api::things_server::ThingsServer::new(service.clone());
        served.add(things.max_decoding_message_size(most)).await;
        let channels = things_api::channels_server::ChannelsServer::new(service.clone());
        served.add(channels.max_decoding_message_size(most)).await;
        let policies = things_api::policies_server::PoliciesServer::new(service);
        served.add(policies.max_decoding_message_size(most)).await;
    }
    if let Some(bootstrap) = services.bootstrap {
        let (identities, proxies) = (Arc::clone(&services.identities), &config.trusted_proxies);
        let service = bootstrap::Service::new(bootstrap, identities, proxies.clone());
        let aside = bootstrap_api::set_aside_server::SetAsideServer::new(service.clone());
        served.add(aside.max_decoding_message_size(most)).await;
        let bootstrap = bootstrap_api::bootstrap_server::BootstrapServer::new(service);
        served.add(bootstrap.max_decoding_message_size(most)).await;
    }
    if let Some(overview) = services.overview {
        let presence = presence::Presence::new(services.front, overview, stop.clone());
        let presence = api::presence_server::PresenceServer::new(presence);
        let presence = presence.max_decoding_message_size(most);
        served.add(ForAdmins::new(presence, admins.clone())).await;
    }
    let server = api::server_server::ServerServer::new(admin::Server::new(services.reload));
    let server = server.max_decoding_message_size(most);
    served.add(ForAdmins::new(server, admins.clone())).await;
    let events = events::Service::new(services.logs, stop.clone());
    let events = api::events_server::EventsServer::new(events).max_decoding_message_size(most);
    served.add(ForAdmins::new(events, admins)).await;

    let Served {
        mut routes,
        mut health,
        names,
        ..
    } = served;
    let description = || {
        let of_all = [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
        ];
        let description = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        let names = names.iter().copied().chain(of_all);
        names.fold(description, |it, name| it.with_service_name(name))
    };
    // Older tools, those of Go among them, ask for the alpha version alone.
    let reflection = description().build_v1()?;
    let alpha = description().build_v1alpha()?;
    routes
        .add_service(reflection.max_decoding_message_size(SMALL))
        .add_service(alpha.max_decoding_message_size(SMALL));

    let (most, patience) = (config.max_connections, config.handshake_timeout);
    let incoming = Incoming::new(listener, certificates, most, patience);
    Server::builder()
        .timeout(config.timeout)
        .concurrency_limit_per_connection(config.max_calls as usize)
        .max_concurrent_streams(config.max_calls)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(incoming, async move {
            let _ = stops.wait_for(|stops| *stops).await;
            // The empty name is that of the whole.
            let names = [&[""], &names[..]].concat();
            for name in &names {
                let not_serving = ServingStatus::NotServing;
                health.set_service_status(name, not_serving).await;
            }
            let _ = stop.wait_for(|stop| *stop).await;
            // Who watches it would hold on otherwise.
            for name in names {
                health.clear_service_status(name).await;
            }
        })
        .await?;
    Ok(())
}

/// The services so far, each of them healthy under its name and listed by reflection.
struct Served {
    routes: RoutesBuilder,
    health: HealthReporter,
    names: Vec<&'static str>,
    room: Room,
}

impl Served {
    async fn add<S>(&mut self, service: S)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let serving = ServingStatus::Serving;
        self.health.set_service_status(S::NAME, serving).await;
        let service = Intake::new(service, self.room.clone());
        self.routes.add_service(service);
        self.names.push(S::NAME);
    }
}
