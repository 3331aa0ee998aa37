//! The MQTT front with what it keeps: the journal of presence, sessions and messages.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rollcall_domain::access::{Access, Authority, Revocations, Revoked};
use rollcall_domain::caller::Identities;
use rollcall_domain::ports::{PresenceLog, Reload, SessionStore};
use rollcall_domain::sessions::Left;
use rollcall_mqtt::{Durability, Front};
use rollcall_redis::follow::Follower;
use rollcall_redis::relay::Relay;
use rollcall_storage::database::Database;
use rollcall_storage::journal::{self, Journal};
use rollcall_storage::sessions::Sessions;

use crate::config::Config;

/// Tells everyone who may hold on to it what was revoked. Without a front, nobody does.
#[derive(Default)]
pub(super) struct Revoking {
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

/// The front, running.
pub(super) struct RunningFront {
    pub(super) front: Front,
    journal: Arc<Journal>,
    sessions: Option<Arc<Sessions>>,
}

pub(super) async fn open_journal(config: &Config) -> anyhow::Result<Arc<Journal>> {
    let path = config.data.join("presence.db");
    let extended = config.events.extended;
    Ok(Journal::open(&path, &config.journal, &config.instance, extended).await?)
}

/// What hears of revocations elsewhere, if there is a Redis to hear them from.
pub(super) fn follower(
    config: &Config,
    database: &Database,
    revoking: &Arc<Revoking>,
) -> anyhow::Result<Option<Follower>> {
    if config.redis.url.is_empty() || !config.access.follow {
        return Ok(None);
    }
    let follower = Follower::new(
        config.redis.clone(),
        Arc::new(database.clone()),
        Arc::clone(revoking) as Arc<dyn Revocations>,
        !config.things.authority.is_empty(),
        config.access.recheck_timeout,
    )?;
    Ok(Some(follower))
}

impl RunningFront {
    pub(super) async fn start(
        config: &Config,
        authority: Arc<dyn Authority>,
        journal: Arc<Journal>,
        revoking: &Revoking,
    ) -> anyhow::Result<Self> {
        let access = Arc::new(Access::new(authority, config.access.clone()));
        let (sessions, left) = open_sessions(config).await?.unzip();
        let store = sessions.clone().map(|it| it as Arc<dyn SessionStore>);
        let presence = config
            .events
            .mqtt
            .then(|| journal.clone() as Arc<dyn PresenceLog>);
        let front = Front::start(
            &config.mqtt,
            Arc::clone(&access),
            presence,
            store,
            left.unwrap_or_default(),
            tokio::runtime::Handle::current(),
        )?;
        revoking.access.get_or_init(|| access);
        revoking.front.get_or_init(|| front.handle());
        Ok(Self {
            front,
            journal,
            sessions,
        })
    }

    /// What reads the certificates of its listeners again.
    pub(super) fn reload(&self) -> Arc<dyn Reload> {
        Arc::new(self.front.handle())
    }

    /// Has sessions end whose clients are on other instances now.
    pub(super) fn follow_clients(&self, relay: Relay) -> Relay {
        relay.with_sessions(self.journal.clone(), Arc::new(self.front.handle()))
    }

    /// As gRPC serves it.
    pub(super) fn for_grpc(&self) -> rollcall_grpc::Front {
        rollcall_grpc::Front {
            roll: self.journal.clone(),
            sessions: Arc::new(self.front.handle()),
        }
    }

    /// As HTTP serves it.
    pub(super) fn for_http(&self, admins: Arc<dyn Identities>) -> rollcall_http::Front {
        rollcall_http::Front {
            roll: self.journal.clone(),
            sessions: Arc::new(self.front.handle()),
            admins,
        }
    }

    /// Says what it lacks to be ready.
    pub(super) fn readiness(&self) -> impl Fn() -> Vec<&'static str> + Send + Sync + use<> {
        let (journal, handle) = (Arc::clone(&self.journal), self.front.handle());
        let sessions = self.sessions.clone();
        move || {
            let failing = sessions.as_ref().is_some_and(|it| it.is_failing());
            let lacks = [
                (!journal.is_writable(), "the journal cannot be written"),
                (failing, "sessions and messages cannot be written"),
                (handle.is_short_of_memory(), "memory is short"),
            ];
            let lacks = lacks.into_iter().filter(|(lacks, _)| *lacks);
            lacks.map(|(_, what)| what).collect()
        }
    }

    /// Sees everybody out. What is left is to be closed once everything is relayed.
    pub(super) async fn stop(self, clients: Duration) -> Remains {
        self.front.stop(clients).await;
        self.journal.flush().await;
        Remains {
            journal: self.journal,
            sessions: self.sessions,
        }
    }
}

/// The files of a front that has stopped.
pub(super) struct Remains {
    journal: Arc<Journal>,
    sessions: Option<Arc<Sessions>>,
}

impl Remains {
    pub(super) async fn close(self) {
        if let Some(sessions) = self.sessions
            && let Err(error) = tokio::task::spawn_blocking(move || sessions.close()).await
        {
            tracing::error!(%error, "cannot wait for sessions to be kept");
        }
        self.journal.close().await;
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
