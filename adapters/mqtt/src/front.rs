//! The front as the program sees it: started, told of revocations, stopped.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use mio::Poll;
use rollcall_domain::access::{Access, Revoked};
use rollcall_domain::identity::SessionId;
use rollcall_domain::ports::{Reload, Reloaded};
use rollcall_domain::presence::{Kick, Kicked, PresenceLog, Sessions};
use rollcall_domain::sessions::{Left, SessionStore};
use tokio::sync::oneshot;

use crate::config::{AccessMode, Address, Config};
use crate::connection::Connection;
use crate::gate::Gate;
use crate::inbox::{Inbox, Mail};
use crate::limits::Counts;
use crate::limits::memory::Memory;
use crate::listener::{self, Door, Listener, ListenerError, SocketFiles};
use crate::metrics::Metrics;
use crate::restoring;
use crate::retained::Retained;
use crate::router::Router;
use crate::session::Expiry;
use crate::sys::Board;
use crate::worker::{WAKER, Worker};

/// What all workers look at.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) listeners: Arc<[Listener]>,
    pub(crate) session_queue_bytes: usize,
    pub(crate) max_subscription_bytes: usize,
    pub(crate) gate: Arc<Gate>,
    /// `None` if nobody is on the roll.
    pub(crate) presence: Option<Arc<dyn PresenceLog>>,
    /// Where sessions and messages are kept beyond this process, if they are.
    pub(crate) store: Option<Arc<dyn SessionStore>>,
    /// The next number of a session or message that is kept.
    pub(crate) numbers: AtomicU64,
    pub(crate) router: Router,
    pub(crate) retained: Retained,
    pub(crate) inboxes: Vec<Arc<Inbox>>,
    pub(crate) connections: AtomicUsize,
    pub(crate) sessions: AtomicUsize,
    pub(crate) counts: Arc<Counts>,
    pub(crate) board: Board,
    pub(crate) metrics: Metrics,
    homes: RandomState,
}

impl Shared {
    /// The worker that owns the sessions of this client.
    pub(crate) fn home(&self, username: &str, client_id: &str) -> usize {
        (self.homes.hash_one((username, client_id)) % self.inboxes.len() as u64) as usize
    }

    /// Who is let in where this connection came in.
    pub(crate) fn access_mode(&self, connection: &Connection) -> AccessMode {
        self.listeners[connection.listener].access
    }

    /// The server that MQTT 5 clients are sent to when this one is full or stops.
    pub(crate) fn server_reference(&self) -> Option<&Arc<str>> {
        self.config.server_reference.get()
    }

    /// A session expiry that a client asks for, in seconds, cut to what is allowed.
    pub(crate) fn expiry(&self, seconds: u32) -> Expiry {
        let most = self.config.max_session_expiry;
        match Duration::from_secs(seconds.into()).min(most) {
            Duration::ZERO => Expiry::AtOnce,
            // A client that wishes for ever means it [MQTT5-3.1.2-23], as far as it is allowed.
            time => Expiry::After(time),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen for MQTT on {address}, as {key}.listen says")]
    Listen {
        address: Address,
        /// What the settings of the listener are called.
        key: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot start a worker thread")]
    Worker(#[source] io::Error),
    #[error(transparent)]
    Listener(#[from] ListenerError),
    #[error("mqtt.max_keep_alive must be whole seconds, at most 65535")]
    MaxKeepAlive,
    #[error("mqtt.max_inflight must be from 1 to 65535")]
    MaxInflight,
}

/// The running front. Its threads go on until [`Front::stop`].
pub struct Front {
    listeners: Vec<(Box<str>, Vec<Address>)>,
    files: SocketFiles,
    shared: Arc<Shared>,
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
}

/// Tells the front what happens elsewhere.
#[derive(Clone)]
pub struct Handle {
    inboxes: Arc<[Arc<Inbox>]>,
    listeners: Arc<[Listener]>,
    memory: Arc<Memory>,
}

impl Reload for Handle {
    fn reload(&self) -> Reloaded {
        let mut reloaded = Reloaded::default();
        for listener in &*self.listeners {
            let Some(certificates) = &listener.certificates else {
                continue;
            };
            match certificates.reload() {
                Ok(()) => {
                    tracing::info!(listener = &*listener.name, "certificates are read again");
                    reloaded.done.push(listener.name.to_string());
                }
                Err(error) => {
                    let why = describe(&error);
                    tracing::error!(listener = &*listener.name, error = why, "certificates stay");
                    reloaded.failed.push(why);
                }
            }
        }
        reloaded
    }
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

impl Handle {
    /// Whether nothing new is taken on, since memory is beyond `mqtt.limits.memory_high_water`.
    #[must_use]
    pub fn is_short_of_memory(&self) -> bool {
        self.memory.is_short()
    }

    /// Takes from sessions what was revoked. `Access` must have forgotten it already.
    pub fn revoked(&self, what: &[Revoked]) {
        let what: Arc<[Revoked]> = what.into();
        for inbox in &*self.inboxes {
            inbox.post(Mail::Revoked(Arc::clone(&what)));
        }
    }

    /// Takes from sessions what the things service says was revoked, or does not deny in time.
    /// `Access` must have forgotten it already.
    pub fn doubted(&self, what: &[Revoked]) {
        let what: Arc<[Revoked]> = what.into();
        for inbox in &*self.inboxes {
            inbox.post(Mail::Doubted(Arc::clone(&what)));
        }
    }
}

#[async_trait]
impl Sessions for Handle {
    async fn kick(&self, kick: Kick) -> Kicked {
        let kick = Arc::new(kick);
        let ask = |inbox: &Arc<Inbox>| {
            let (answer, asked) = oneshot::channel();
            inbox.post(Mail::Kick(Arc::clone(&kick), answer));
            asked
        };
        let asked: Vec<_> = self.inboxes.iter().map(ask).collect();
        let mut all = Kicked::default();
        for answer in asked {
            // A worker that has ended has no sessions.
            let Kicked { ended, forgotten } = answer.await.unwrap_or_default();
            all.ended += ended;
            all.forgotten += forgotten;
        }
        all
    }

    fn take_over(&self, sessions: HashSet<SessionId>) {
        let sessions = Arc::new(sessions);
        for inbox in &*self.inboxes {
            inbox.post(Mail::TakenOver(Arc::clone(&sessions)));
        }
    }
}

impl Front {
    /// Listens, and starts the threads that serve. Questions to the things service run on `runtime`.
    /// Sessions and messages are kept in `store`, if there is one, which has `left` them to this run. Without
    /// `presence` nobody is on the roll.
    ///
    /// # Errors
    /// An address cannot be listened on, a thread cannot be started, or `config` makes no sense.
    pub fn start(
        config: &Config,
        access: Arc<Access>,
        presence: Option<Arc<dyn PresenceLog>>,
        store: Option<Arc<dyn SessionStore>>,
        left: Left,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, StartError> {
        let listeners: Arc<[Listener]> = listener::resolve(config)?.into();
        if config.max_inflight == 0 {
            return Err(StartError::MaxInflight);
        }
        let keep_alive = config.max_keep_alive;
        let most = Duration::from_secs(u16::MAX.into());
        if keep_alive > most || keep_alive.subsec_nanos() > 0 {
            return Err(StartError::MaxKeepAlive);
        }
        let mut doors = Vec::new();
        let mut files = SocketFiles::default();
        let mut named = Vec::new();
        for (n, listener) in listeners.iter().enumerate() {
            if listener.access == AccessMode::Open {
                tracing::warn!(
                    listener = &*listener.name,
                    "access is open: everybody may connect without credentials, publish and subscribe to \
                     everything, and nobody is on the roll; for test suites and laboratories only"
                );
            }
            let mut real = Vec::new();
            for address in &listener.addresses {
                let wrong = |source| StartError::Listen {
                    address: address.clone(),
                    key: listener::key(&listener.name),
                    source,
                };
                let door = Door::open(address, listener.unix_mode).map_err(wrong)?;
                files.add(address).map_err(wrong)?;
                real.push(door.address(address).map_err(wrong)?);
                doors.push((door, n));
            }
            named.push((listener.name.clone(), real));
        }

        let workers = match config.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let polls = (0..workers)
            .map(|_| Poll::new())
            .collect::<io::Result<Vec<_>>>()
            .map_err(StartError::Worker)?;
        let inboxes = polls
            .iter()
            .map(|poll| Inbox::new(poll.registry(), WAKER).map(Arc::new))
            .collect::<io::Result<Vec<_>>>()
            .map_err(StartError::Worker)?;
        let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let now = std::time::Instant::now();
        let counts = Arc::new(Counts::new(&config.limits, workers, now));
        runtime.spawn(Counts::watch(Arc::downgrade(&counts)));
        let shared = Arc::new(Shared {
            listeners: Arc::clone(&listeners),
            session_queue_bytes: bytes(config.session_queue_bytes),
            max_subscription_bytes: bytes(config.max_subscription_bytes),
            gate: Arc::new(Gate::new(access, runtime, config.max_questions)),
            presence,
            router: Router::new(workers),
            retained: Retained::new(
                config.max_retained,
                bytes(config.max_retained_bytes),
                store.clone(),
            ),
            numbers: AtomicU64::new(left.next.max(1)),
            store,
            inboxes: inboxes.clone(),
            connections: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            counts,
            board: Board::new(&config.sys, now),
            metrics: Metrics::new(),
            homes: RandomState::new(),
            config: config.clone(),
        });

        // From here on threads run: `front` stops them should a later one fail to start.
        let handle = Handle {
            inboxes: inboxes.into(),
            listeners,
            memory: Arc::clone(&shared.counts.memory),
        };
        let mut front = Self {
            listeners: named,
            files,
            shared: Arc::clone(&shared),
            handle,
            threads: Vec::with_capacity(workers),
        };
        let mut workers = Vec::with_capacity(workers);
        for (id, poll) in polls.into_iter().enumerate() {
            workers.push(worker(id, &shared, poll, &doors).map_err(StartError::Worker)?);
        }
        if shared.store.is_some() {
            restoring::restore(&shared, &mut workers, left);
        }
        for (id, worker) in workers.into_iter().enumerate() {
            let thread = thread::Builder::new().name(format!("mqtt-{id}"));
            let thread = thread.spawn(move || worker.run());
            front.threads.push(thread.map_err(StartError::Worker)?);
        }
        Ok(front)
    }

    /// The names of the listeners and where they listen, with real ports; that of `mqtt.listen` is `mqtt`.
    #[must_use]
    pub fn listeners(&self) -> &[(Box<str>, Vec<Address>)] {
        &self.listeners
    }

    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops listening, says goodbye to everybody and returns when all departures are with the journal.
    ///
    /// They are told one after the other, `drain.per_second` of them, but within `most`.
    pub async fn stop(mut self, most: Duration) {
        let here = self.shared.connections.load(Ordering::Relaxed);
        let wished =
            Duration::from_secs_f64(here as f64 / f64::from(self.shared.config.drain.per_second));
        let spread = wished.min(most);
        tracing::info!(connections = here, spread = ?spread, "seeing everybody out");
        let threads = self.dismiss(spread);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a worker thread has panicked");
                }
            }
        });
        if let Err(error) = joined.await {
            tracing::error!(%error, "cannot wait for the worker threads");
        }
    }

    fn dismiss(&mut self, spread: Duration) -> Vec<JoinHandle<()>> {
        drop(std::mem::take(&mut self.files));
        for inbox in &*self.handle.inboxes {
            inbox.post(Mail::Stop { spread });
        }
        std::mem::take(&mut self.threads)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.dismiss(Duration::ZERO);
    }
}

fn worker(
    id: usize,
    shared: &Arc<Shared>,
    poll: Poll,
    doors: &[(Door, usize)],
) -> io::Result<Worker> {
    let doors = doors
        .iter()
        .map(|(door, listener)| door.watched(*listener))
        .collect::<io::Result<Vec<_>>>()?;
    Worker::new(id as u16, Arc::clone(shared), poll, doors)
}
