//! The gRPC edge: the services, and the clients of them.

mod admin;
mod auth;
pub mod authority;
pub mod client;
mod events;
mod status;
mod things;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rollcall_domain::access::Authority;
use rollcall_domain::identity::{Secret, UserId};
use rollcall_domain::ports::EventLog;
use rollcall_domain::presence::{Roll, Sessions};
use rollcall_domain::things::Things;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// The messages of `rollcall.v1`.
pub mod api {
    tonic::include_proto!("rollcall.v1");
}

/// The messages of `mainflux.things.policies`.
pub mod policies {
    tonic::include_proto!("mainflux.things.policies");
}

const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: SocketAddr,
    /// Calls of one connection at one time.
    pub max_calls: u32,
    /// From a call to its answer; streams are not bounded.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

/// What the services need.
#[derive(Clone)]
pub struct Services {
    pub things: Arc<Things>,
    pub authority: Arc<dyn Authority>,
    /// In whose name the command line acts.
    pub admin: UserId,
    pub token: Secret,
    pub roll: Arc<dyn Roll>,
    pub sessions: Arc<dyn Sessions>,
    pub logs: Vec<Arc<dyn EventLog>>,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot describe the services")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("cannot serve gRPC")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves until `stop` is true.
///
/// `AuthService` asks for no token: who holds a thing's key may ask about that thing, and nobody else can.
///
/// # Errors
/// The listener is broken.
pub async fn serve(
    config: &Config,
    listener: TcpListener,
    services: Services,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let auth = policies::auth_service_server::AuthServiceServer::new(auth::Auth::new(&services));
    health
        .set_serving::<policies::auth_service_server::AuthServiceServer<auth::Auth>>()
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let check = admin::TokenCheck::new(services.token.clone());
    let things = things::Service::new(&services);
    let presence = admin::Presence::new(&services);
    let events = events::Service::new(services.logs.clone(), stop.clone());

    Server::builder()
        .timeout(config.timeout)
        .concurrency_limit_per_connection(config.max_calls as usize)
        .max_concurrent_streams(config.max_calls)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(auth)
        .add_service(api::things_server::ThingsServer::with_interceptor(
            things,
            check.clone(),
        ))
        .add_service(api::presence_server::PresenceServer::with_interceptor(
            presence,
            check.clone(),
        ))
        .add_service(api::events_server::EventsServer::with_interceptor(
            events, check,
        ))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), async move {
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await?;
    Ok(())
}
