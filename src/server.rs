//! The whole of rollcall in one process: the edges are opened, joined to the domain, and drained.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use rollcall_domain::access::{Access, Authority, Revocations, Revoked};
use rollcall_domain::caller::{Caller, Identities, OwnersToken, Question};
use rollcall_domain::event::Stream;
use rollcall_domain::identity::{Secret, UserId};
use rollcall_domain::ports::{EventLog, Reload, SessionStore};
use rollcall_domain::refusal::Refusal;
use rollcall_domain::sessions::Left;
use rollcall_domain::things::{ThingStore, Things};
use rollcall_domain::users::{UserStore, Users};
use rollcall_domain::vault::KeyKeeper;
use rollcall_grpc::Services;
use rollcall_grpc::authority::RemoteAuthority;
use rollcall_http::{About, Pages, Site};
use rollcall_mqtt::{Address, Durability, Front};
use rollcall_redis::follow::Follower;
use rollcall_redis::lease::Refused;
use rollcall_redis::relay::Relay;
use rollcall_storage::database::Database;
use rollcall_storage::journal::{self, Journal};
use rollcall_storage::sessions::Sessions;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::{Config, ShowKeys};
use crate::secrets::Secrets;

/// Of the time to stop, what the journal and the databases may need after the clients have left.
const TIME_TO_KEEP: Duration = Duration::from_secs(2);

/// Everything, running.
pub struct Server {
    front: Front,
    journal: Arc<Journal>,
    sessions: Option<Arc<Sessions>>,
    database: Database,
    stop: watch::Sender<bool>,
    stopping: Arc<AtomicBool>,
    deadline: Duration,
    /// Of the deadline, what is not for seeing clients out.
    relay_time: Duration,
    tasks: Vec<JoinHandle<()>>,
    refused: oneshot::Receiver<Refused>,
    pub things: Arc<Things>,
    pub admin: UserId,
    pub addresses: Addresses,
    /// The administrator's password, the one time it is known: after the first start.
    pub first_password: Option<Secret>,
}

/// Where the server really listens.
pub struct Addresses {
    /// By listener; that of `mqtt.listen` is `mqtt`.
    pub mqtt: Vec<(Box<str>, Vec<Address>)>,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    /// The REST interfaces of services, by their keys such as `http.things`.
    pub rest: Vec<(&'static str, SocketAddr)>,
}

/// Of whom no token is known.
struct NobodyElse;

#[async_trait::async_trait]
impl Identities for NobodyElse {
    async fn caller(&self, _: &Secret) -> Result<Caller, Refusal> {
        Err(Refusal::Unauthenticated)
    }

    async fn authorize(&self, _: Question<'_>) -> Result<(), Refusal> {
        Err(Refusal::Unauthenticated)
    }
}

/// Tells everyone who may hold on to it what was revoked.
#[derive(Default)]
struct Revoking {
    access: OnceLock<Arc<Access>>,
    front: OnceLock<rollcall_mqtt::Handle>,
}

impl Revocations for Revoking {
    fn revoked(&self, what: &[Revoked]) {
        if let Some(access) = self.access.get() {
            access.forget(what);
        }
        if let Some(front) = self.front.get() {
            front.revoked(what);
        }
    }

    fn doubted(&self, what: &[Revoked]) {
        if let Some(access) = self.access.get() {
            access.forget(what);
        }
        if let Some(front) = self.front.get() {
            front.doubted(what);
        }
    }
}

impl Server {
    /// Opens everything. When this returns, clients are served and nothing of an earlier run is left open.
    ///
    /// # Errors
    /// What cannot be opened, with its cause.
    pub async fn start(config: &Config, secrets: &Secrets) -> anyhow::Result<Self> {
        let metrics = rollcall_http::Metrics::install()?;
        let database = match config.storage.url.is_empty() {
            true => Database::open(&config.data.join("rollcall.db")).await?,
            false => Database::connect(&config.storage).await?,
        };
        let path = config.data.join("presence.db");
        let extended = config.events.extended;
        let journal = Journal::open(&path, &config.journal, &config.instance, extended).await?;

        let relay = match config.redis.url.is_empty() {
            true => None,
            false => {
                let (redis, lease) = (config.redis.clone(), config.lease.clone());
                let relay = Relay::new(redis, lease, journal.clone(), extended)?;
                relay.claim().await?;
                Some(relay)
            }
        };

        let users = Users::new(Arc::new(database.clone()) as Arc<dyn UserStore>);
        let password = Secret::generate();
        let (admin, first) = users
            .ensure_admin(&config.admin.identity, &password)
            .await?;

        let token = secrets.admin_token()?;
        let identities: Arc<dyn Identities> =
            Arc::new(OwnersToken::new(token, admin, Arc::new(NobodyElse)));

        let vault = match config.things.show_keys {
            ShowKeys::Always => Some(secrets.vault()?),
            ShowKeys::Once => None,
        };
        let keys = KeyKeeper::new(secrets.key_hasher()?, vault);
        let revoking = Arc::new(Revoking::default());
        let things = Arc::new(Things::new(
            Arc::new(database.clone()) as Arc<dyn ThingStore>,
            Arc::clone(&revoking) as Arc<dyn Revocations>,
            keys,
        ));
        let authority: Arc<dyn Authority> = match config.things.authority.as_str() {
            "" => Arc::clone(&things) as Arc<dyn Authority>,
            url => Arc::new(RemoteAuthority::new(url, config.things.timeout)?),
        };
        let access = Arc::new(Access::new(authority, config.access.clone()));

        let grpc = listen(config.grpc.listen, "gRPC").await?;
        let http = listen(config.http.listen, "HTTP").await?;
        let rest = listen_for_rest(&config.http).await?;
        let follower = match !config.redis.url.is_empty() && config.access.follow {
            true => Some(Follower::new(
                config.redis.clone(),
                Arc::new(database.clone()),
                Arc::clone(&revoking) as Arc<dyn Revocations>,
                !config.things.authority.is_empty(),
                config.access.recheck_timeout,
            )?),
            false => None,
        };
        let (sessions, left) = open_sessions(config).await?.unzip();
        let store = sessions.clone().map(|it| it as Arc<dyn SessionStore>);
        let front = Front::start(
            &config.mqtt,
            Arc::clone(&access),
            journal.clone(),
            store,
            left.unwrap_or_default(),
            tokio::runtime::Handle::current(),
        )?;
        revoking.access.get_or_init(|| access);
        revoking.front.get_or_init(|| front.handle());

        let addresses = Addresses {
            mqtt: front.listeners().to_vec(),
            grpc: grpc.local_addr()?,
            http: http.local_addr()?,
            rest: rest
                .iter()
                .map(|(service, listener)| Ok((service.key(), listener.local_addr()?)))
                .collect::<io::Result<_>>()?,
        };
        let relayed: Vec<Arc<dyn EventLog>> = Stream::ALL
            .into_iter()
            .filter_map(|stream| database.log(stream))
            .collect();
        let mut logs = relayed.clone();
        logs.push(journal.clone());
        let (stop, stopping) = watch::channel(false);
        let leaving = Arc::new(AtomicBool::new(false));
        let drained = Arc::clone(&leaving);
        let relay_time = match config.redis.url.is_empty() {
            true => Duration::ZERO,
            false => config.redis.drain_timeout,
        };
        let mut tasks = Vec::new();
        let (refuse, refused) = oneshot::channel();
        let services = Services {
            things: Arc::clone(&things),
            authority: Arc::clone(&things) as Arc<dyn Authority>,
            identities: Arc::clone(&identities),
            roll: journal.clone(),
            sessions: Arc::new(front.handle()),
            reload: Arc::new(front.handle()),
            logs,
        };
        let (settings, stopped) = (config.grpc.clone(), stopping.clone());
        tasks.push(tokio::spawn(async move {
            if let Err(error) = rollcall_grpc::serve(&settings, grpc, services, stopped).await {
                tracing::error!(error = &error as &dyn std::error::Error, "gRPC has failed");
            }
        }));
        let (ready, handle) = (Arc::clone(&journal), front.handle());
        let kept = sessions.clone();
        tasks.push(tokio::spawn(metrics.clone().keep_up(stopping.clone())));
        let pages = Site::Pages(Pages {
            metrics: metrics.clone(),
            roll: journal.clone(),
            sessions: Arc::new(front.handle()),
            reload: Arc::new(front.handle()),
            identities: Arc::clone(&identities),
            readiness: Arc::new(move || {
                let failing = kept.as_ref().is_some_and(|it| it.is_failing());
                let lacks = [
                    (drained.load(Ordering::Relaxed), "the server is stopping"),
                    (!ready.is_writable(), "the journal cannot be written"),
                    (failing, "sessions and messages cannot be written"),
                    (handle.is_short_of_memory(), "memory is short"),
                ];
                let lacks = lacks.into_iter().filter(|(lacks, _)| *lacks);
                lacks.map(|(_, what)| what.to_owned()).collect()
            }),
        });
        let mut sites = vec![(http, pages)];
        for (service, listener) in rest {
            let about = About {
                service: service.name(),
                instance: config.instance.clone(),
                metrics: metrics.clone(),
            };
            let site = match service {
                Rest::Users => Site::Users(rollcall_http::Users { about }),
                Rest::Things => Site::Things(rollcall_http::Things {
                    things: Arc::clone(&things),
                    authority: Arc::clone(&things) as Arc<dyn Authority>,
                    identities: Arc::clone(&identities),
                    about,
                }),
                Rest::Bootstrap => Site::Bootstrap(rollcall_http::Bootstrap { about }),
            };
            sites.push((listener, site));
        }
        for (listener, site) in sites {
            let (settings, stopped) = (config.http.clone(), stopping.clone());
            tasks.push(tokio::spawn(async move {
                rollcall_http::serve(&settings, listener, site, stopped).await;
            }));
        }
        if let Some(follower) = follower {
            tasks.push(tokio::spawn(follower.run(stopping.clone())));
        }
        if let Some(relay) = relay {
            let relaying = relay.run(relayed, stopping);
            tasks.push(tokio::spawn(async move {
                if let Err(error) = relaying.await {
                    // Nobody listens once the server stops.
                    let _ = refuse.send(error);
                }
            }));
        }
        let first_password = first.then_some(password);
        Ok(Self {
            front,
            journal,
            sessions,
            database,
            stop,
            stopping: leaving,
            deadline: config.mqtt.drain.deadline,
            relay_time,
            tasks,
            refused,
            things,
            admin,
            addresses,
            first_password,
        })
    }

    /// What reads certificates again.
    #[must_use]
    pub fn reload(&self) -> Arc<dyn Reload> {
        Arc::new(self.front.handle())
    }

    /// Returns if the server cannot go on, with the reason.
    pub async fn failed(&mut self) -> Refused {
        match (&mut self.refused).await {
            Ok(refused) => refused,
            // There is nothing that could fail any longer.
            Err(_) => std::future::pending().await,
        }
    }

    /// Sees everybody out, waits until that is kept and, for a while, until it is relayed.
    pub async fn stop(self) {
        let begin = Instant::now();
        self.stopping.store(true, Ordering::Relaxed);
        let clients = self.deadline.saturating_sub(self.relay_time + TIME_TO_KEEP);
        self.front.stop(clients).await;
        self.journal.flush().await;
        self.stop.send_replace(true);
        let end = begin + self.deadline.saturating_sub(TIME_TO_KEEP / 2);
        for mut task in self.tasks {
            match tokio::time::timeout_at(end.into(), &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a task has failed"),
                // Somebody at the other end does not let go.
                Err(_) => task.abort(),
            }
        }
        if let Some(sessions) = self.sessions
            && let Err(error) = tokio::task::spawn_blocking(move || sessions.close()).await
        {
            tracing::error!(%error, "cannot wait for sessions to be kept");
        }
        self.journal.close().await;
        self.database.close().await;
    }
}

/// Opens the file of sessions and messages, if they are to outlive this process.
async fn open_sessions(config: &Config) -> anyhow::Result<Option<(Arc<Sessions>, Left)>> {
    let durability = match config.mqtt.durability {
        Durability::Memory => return Ok(None),
        Durability::Process => journal::Durability::Process,
        Durability::Disk => journal::Durability::Disk,
    };
    let (path, interval) = (config.data.join("sessions.db"), config.mqtt.commit_interval);
    let open = move || Sessions::open(&path, durability, interval);
    Ok(Some(tokio::task::spawn_blocking(open).await??))
}

async fn listen(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen for {what} on {address}"))
}

/// The services with a REST interface of their own.
#[derive(Clone, Copy)]
enum Rest {
    Users,
    Things,
    Bootstrap,
}

impl Rest {
    const fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Things => "things",
            Self::Bootstrap => "bootstrap",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Users => "http.users",
            Self::Things => "http.things",
            Self::Bootstrap => "http.bootstrap",
        }
    }
}

async fn listen_for_rest(
    config: &rollcall_http::Config,
) -> anyhow::Result<Vec<(Rest, TcpListener)>> {
    let mut listeners = Vec::new();
    for (service, address) in [
        (Rest::Users, config.users),
        (Rest::Things, config.things),
        (Rest::Bootstrap, config.bootstrap),
    ] {
        if let Some(address) = address {
            let what = format!("{} over HTTP", service.name());
            listeners.push((service, listen(address, &what).await?));
        }
    }
    Ok(listeners)
}
