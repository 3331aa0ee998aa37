//! rollcall, the whole or a part of it: the edges are opened, joined to the domain, and drained.

mod certificates;
mod front;
mod hearing;
mod rest;
mod role;
mod services;
mod users;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rollcall_domain::access::Revocations;
use rollcall_domain::attendance::{Attendance, Here, Overview};
use rollcall_domain::bootstrap::Bootstrap;
use rollcall_domain::event::Stream;
use rollcall_domain::identity::{Secret, UserId};
use rollcall_domain::ports::{EventLog, EventSource, Reload};
use rollcall_domain::presence;
use rollcall_domain::things::Things;
use rollcall_http::{Metrics, Pages, Readiness, Site};
use rollcall_mqtt::Address;
use rollcall_redis::attendance::Shared;
use rollcall_redis::consume::GroupSource;
use rollcall_redis::lease::Refused;
use rollcall_redis::relay::Relay;
use rollcall_storage::database::Database;
use rollcall_storage::journal::Journal;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub use role::Role;

use crate::config::Config;
use crate::secrets::Secrets;
use certificates::AllCertificates;
use front::{Revoking, RunningFront};
use hearing::{Hearing, LogSource};
use services::Services;

/// Of the time to stop, what the journal and the databases may need after the clients have left.
const TIME_TO_KEEP: Duration = Duration::from_secs(2);

/// Everything, running.
pub struct Server {
    front: Option<RunningFront>,
    database: Database,
    /// Whoever asks hears that it stops.
    stopping: watch::Sender<bool>,
    /// Nothing new is taken on.
    stop: watch::Sender<bool>,
    /// Nothing new happens that could be relayed.
    settled: watch::Sender<bool>,
    deadline: Duration,
    /// Of the deadline, what is for the relay alone.
    relay_time: Duration,
    tasks: Vec<JoinHandle<()>>,
    relaying: Option<JoinHandle<()>>,
    /// Nothing any more once there is nobody who could be.
    refused: Option<oneshot::Receiver<Refused>>,
    certificates: Arc<AllCertificates>,
    pub things: Option<Arc<Things>>,
    pub bootstrap: Option<Arc<Bootstrap>>,
    pub admin: Option<UserId>,
    pub addresses: Addresses,
    /// The administrator's password, if it was generated: the one time it is known, after the first start.
    pub first_password: Option<Secret>,
}

/// Where the server really listens.
pub struct Addresses {
    /// By listener; that of `mqtt.listen` is `mqtt`.
    pub mqtt: Vec<(Box<str>, Vec<Address>)>,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    /// The REST interfaces of services, by their keys such as `http.things`.
    pub rest: Vec<(String, SocketAddr)>,
}

impl Server {
    /// Opens everything that `role` has. When this returns, clients are served and nothing of an earlier run is left
    /// open.
    ///
    /// # Errors
    /// What cannot be opened, with its cause.
    pub async fn start(config: &Config, role: Role, secrets: &Secrets) -> anyhow::Result<Self> {
        let metrics = Metrics::install()?;
        let database = match config.storage.url.is_empty() {
            true => Database::open(&role.database(&config.data)?).await?,
            false => Database::connect(&config.storage).await?,
        }
        .without(config.events.exclude.clone());
        let journal = match role.has(Role::Mqtt) {
            true => Some(front::open_journal(config).await?),
            false => None,
        };
        let relay = relay(config, journal.clone()).await?;
        let revoking = Arc::new(Revoking::default());
        let revocations = Arc::clone(&revoking) as Arc<dyn Revocations>;
        let mut services = Services::open(config, role, secrets, &database, revocations).await?;

        let grpc = listen(config.grpc.listen, "gRPC", "grpc.listen").await?;
        let http = listen(config.http.listen, "HTTP", "http.listen").await?;
        let rest = rest::open(role, &config.http).await?;
        let mut follower = None;
        let mut front = None;
        if let Some(journal) = journal.clone() {
            follower = front::follower(config, &database, &revoking)?;
            let authority = services.authority(config)?;
            front = Some(RunningFront::start(config, authority, journal, &revoking).await?);
        }
        let reload = front.as_ref().map(RunningFront::reload);
        let certificates = Arc::new(AllCertificates::read(config, reload)?);
        certificates::warn_of_clear_text(config, role);
        let addresses = Addresses {
            mqtt: front
                .as_ref()
                .map_or_else(Vec::new, |it| it.front.listeners().to_vec()),
            grpc: grpc.local_addr()?,
            http: http.local_addr()?,
            rest: rest
                .iter()
                .map(rest::Rest::address)
                .collect::<io::Result<_>>()?,
        };

        let overview = overview(config, journal.as_ref(), services.things.as_ref())?;
        let relayed = logs(role, &database);
        let mut logs = relayed.clone();
        logs.extend(journal.map(|it| it as Arc<dyn EventLog>));
        let (stopping, stops) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = vec![tokio::spawn(metrics.clone().keep_up(stopped.clone()))];
        if let Some(postman) = services.postman.take() {
            tasks.push(tokio::spawn(postman.run(stopped.clone())));
        }
        let settings = config.grpc.clone();
        let (ill, until) = (stops.clone(), stopped.clone());
        let served = rollcall_grpc::Services {
            identities: Arc::clone(&services.identities),
            admins: Arc::clone(&services.admins),
            users_callers: Arc::clone(&services.users_callers),
            users: services.users.clone(),
            groups: services.groups.clone(),
            things: services.things.clone(),
            bootstrap: services.bootstrap.clone(),
            front: front.as_ref().map(RunningFront::for_grpc),
            overview: overview.clone(),
            reload: certificates.clone(),
            logs,
        };
        let tls = certificates.grpc.clone();
        tasks.push(tokio::spawn(async move {
            if let Err(error) = rollcall_grpc::serve(&settings, tls, grpc, served, ill, until).await
            {
                tracing::error!(error = &error as &dyn std::error::Error, "gRPC has failed");
            }
        }));
        let pages = Site::Pages(Pages {
            metrics: metrics.clone(),
            readiness: readiness(stops.clone(), front.as_ref()),
            reload: certificates.clone(),
            admins: Arc::clone(&services.admins),
            front: front
                .as_ref()
                .map(|it| it.for_http(Arc::clone(&services.admins))),
            presence: overview.map(|overview| rollcall_http::Presence {
                overview,
                admins: Arc::clone(&services.admins),
            }),
        });
        let mut sites = vec![(http, pages)];
        sites.extend(
            rest.into_iter()
                .filter_map(|it| it.site(config, &services, metrics.clone(), stops.clone())),
        );
        for (listener, site) in sites {
            let (settings, until) = (config.http.clone(), stopped.clone());
            let tls = certificates.http.clone();
            tasks.push(tokio::spawn(async move {
                rollcall_http::serve(&settings, tls, listener, site, until).await;
            }));
        }
        if let Some(hearing) = hearing(config, &services, &database).await? {
            tasks.push(tokio::spawn(hearing.run(stopped.clone())));
        }
        if let Some(follower) = follower {
            tasks.push(tokio::spawn(follower.run(stopped)));
        }
        let (refuse, refused) = oneshot::channel();
        let (settled, until) = watch::channel(false);
        let mut relaying = None;
        let mut relay_time = Duration::ZERO;
        if let Some(mut relay) = relay {
            if let Some(front) = &front {
                relay = front.follow_clients(relay);
            }
            relay_time = config.redis.drain_timeout;
            let running = relay.run(relayed, until);
            relaying = Some(tokio::spawn(async move {
                if let Err(error) = running.await {
                    // Nobody listens once the server stops.
                    let _ = refuse.send(error);
                }
            }));
        }
        Ok(Self {
            front,
            database,
            stopping,
            stop,
            settled,
            deadline: config.mqtt.drain.deadline,
            relay_time,
            tasks,
            relaying,
            refused: Some(refused),
            certificates,
            things: services.things,
            bootstrap: services.bootstrap,
            admin: services.admin,
            addresses,
            first_password: services.first_password,
        })
    }

    /// What reads certificates again.
    #[must_use]
    pub fn reload(&self) -> Arc<dyn Reload> {
        self.certificates.clone()
    }

    /// Returns if the server cannot go on, with the reason.
    pub async fn failed(&mut self) -> Refused {
        if let Some(refused) = &mut self.refused {
            match refused.await {
                Ok(refused) => return refused,
                Err(_) => self.refused = None,
            }
        }
        std::future::pending().await
    }

    /// Says that it stops, sees everybody out, answers what was asked, waits until all that is kept and, for a while,
    /// until it is relayed.
    pub async fn stop(self) {
        let begin = Instant::now();
        let until = |rest: Duration| begin + self.deadline.saturating_sub(rest);
        self.stopping.send_replace(true);
        let clients = self.deadline.saturating_sub(self.relay_time + TIME_TO_KEEP);
        let remains = match self.front {
            Some(front) => Some(front.stop(clients).await),
            None => None,
        };
        self.stop.send_replace(true);
        finish(self.tasks, until(self.relay_time + TIME_TO_KEEP / 2)).await;
        self.settled.send_replace(true);
        finish(self.relaying, until(TIME_TO_KEEP / 2)).await;
        if let Some(remains) = remains {
            remains.close().await;
        }
        self.database.close().await;
    }
}

/// Waits for the end of all of them, but not for ever.
async fn finish(tasks: impl IntoIterator<Item = JoinHandle<()>>, end: Instant) {
    for mut task in tasks {
        match tokio::time::timeout_at(end.into(), &mut task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a task has failed"),
            // Somebody at the other end does not let go.
            Err(_) => task.abort(),
        }
    }
}

/// What brings events to Redis, if there is one; nobody else has the name of this front there.
async fn relay(config: &Config, journal: Option<Arc<Journal>>) -> anyhow::Result<Option<Relay>> {
    if config.redis.url.is_empty() {
        return Ok(None);
    }
    let mut relay = Relay::new(config.redis.clone())?;
    if let Some(journal) = journal {
        relay = relay.with_presence(config.lease.clone(), journal, config.events.extended);
    }
    relay.claim().await?;
    Ok(Some(relay))
}

/// Who is online: on all instances where there is a Redis, else on this one. `None` if there is neither, or this
/// process has nothing to do with things.
fn overview(
    config: &Config,
    journal: Option<&Arc<Journal>>,
    things: Option<&Arc<Things>>,
) -> anyhow::Result<Option<Overview>> {
    if journal.is_none() && things.is_none() {
        return Ok(None);
    }
    let attendance: Arc<dyn Attendance> = match journal {
        _ if !config.redis.url.is_empty() => {
            Arc::new(Shared::new(&config.redis.url, &config.redis.prefix)?)
        }
        Some(journal) => Arc::new(Here::new(Arc::clone(journal) as Arc<dyn presence::Journal>)),
        None => return Ok(None),
    };
    Ok(Some(Overview::new(attendance, things.cloned())))
}

/// Where bootstrap hears of things; `None` if it is not here.
async fn hearing(
    config: &Config,
    services: &Services,
    database: &Database,
) -> anyhow::Result<Option<Hearing>> {
    let Some(bootstrap) = &services.bootstrap else {
        return Ok(None);
    };
    let source: Box<dyn EventSource> = if !config.redis.url.is_empty() {
        let (group, consumer) = (config.bootstrap.group.clone(), config.instance.clone());
        let redis = config.redis.clone();
        Box::new(GroupSource::new(redis, Stream::Things, group, consumer)?)
    } else if services.things.is_some()
        && let Some(log) = database.log(Stream::Things)
    {
        Box::new(LogSource(log))
    } else {
        tracing::warn!("bootstrap does not hear what happens to things: set redis.url");
        return Ok(None);
    };
    let hearing = Hearing::begin(Arc::clone(bootstrap), source).await?;
    Ok(Some(hearing))
}

/// The events of the services that are here. Those of others in the same database are theirs to relay.
fn logs(role: Role, database: &Database) -> Vec<Arc<dyn EventLog>> {
    let streams = [
        (Role::Users, Stream::Users),
        (Role::Things, Stream::Things),
        (Role::Bootstrap, Stream::Bootstrap),
    ];
    let here = streams.into_iter().filter(|(part, _)| role.has(*part));
    here.filter_map(|(_, stream)| database.log(stream))
        .collect()
}

fn readiness(stops: watch::Receiver<bool>, front: Option<&RunningFront>) -> Readiness {
    let front = front.map(RunningFront::readiness);
    Arc::new(move || {
        let mut lacks: Vec<String> = Vec::new();
        if *stops.borrow() {
            lacks.push("the server is stopping".to_owned());
        }
        if let Some(front) = &front {
            lacks.extend(front().into_iter().map(ToOwned::to_owned));
        }
        lacks
    })
}

async fn listen(address: SocketAddr, what: &str, key: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen for {what} on {address}, as {key} says"))
}
