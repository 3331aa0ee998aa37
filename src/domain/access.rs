//! Who is this? May it? And the grants that are remembered, so that asking is a look into memory.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dashmap::DashMap;
use serde::Deserialize;

use crate::identity::{ChannelId, KeyHash, KeyHasher, Secret, ThingId};
use crate::things::Actions;

/// What a thing may do on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `m_read`: subscribe.
    Read,
    /// `m_write`: publish.
    Write,
}

impl Action {
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "m_read",
            Self::Write => "m_write",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or(UnknownAction)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown action: choose from m_read, m_write")]
pub struct UnknownAction;

/// The service that knows: in this process, or another one's `mainflux.things.policies.AuthService`.
#[async_trait]
pub trait Authority: Send + Sync {
    /// Whether everything that it revokes is told here at once, whatever happens.
    fn tells_revocations(&self) -> bool {
        false
    }

    /// Which enabled thing holds `key`?
    async fn identify(&self, key: &Secret) -> Result<ThingId, AuthorityError>;

    /// May the thing that holds `key` do `action` on `channel`? Returns which thing that is.
    async fn authorize(
        &self,
        key: &Secret,
        channel: ChannelId,
        action: Action,
    ) -> Result<ThingId, AuthorityError>;

    /// Is this thing here, and enabled? An authority that knows things by their keys alone denies it.
    async fn vouch(&self, _: ThingId) -> Result<(), AuthorityError> {
        Err(AuthorityError::Denied)
    }

    /// May this thing do `action` on `channel`? Like [`Authority::vouch`].
    async fn allow(&self, _: ThingId, _: ChannelId, _: Action) -> Result<(), AuthorityError> {
        Err(AuthorityError::Denied)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Unknown key, disabled thing, or no such grant: which one is nobody's business.
    #[error("access denied")]
    Denied,
    /// No answer: the caller may try again.
    #[error("cannot reach the things service")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How a thing proves who it is.
#[derive(Clone, Debug)]
pub enum Proof {
    Key(Secret),
    /// The front has checked a certificate that names it: it has only to be here and enabled.
    Certificate,
}

/// What a client offers: the id of a thing as user name, its key as password; or a certificate.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `None` for what is no id of a thing: nobody's, but checked like everybody's, so that an answer and the
    /// time it takes tell nothing.
    pub thing: Option<ThingId>,
    pub proof: Proof,
}

/// Proof that credentials were checked. Only [`Access`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authenticated {
    thing: ThingId,
    epoch: u64,
}

impl Authenticated {
    #[must_use]
    pub const fn thing(&self) -> ThingId {
        self.thing
    }
}

/// Proof that an action was granted. Holds until something is revoked or its time is up; ask
/// [`Access::holds`]. Only [`Access`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Permit {
    epoch: u64,
    until: Instant,
}

/// What memory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    Granted(T),
    Denied,
    /// Nothing is remembered: ask the authority.
    Unknown,
}

/// Access that was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// The thing was disabled: nothing that was granted to it holds.
    Thing(ThingId),
    /// The key of the thing changed: who came with the old one is nobody now.
    Key(ThingId),
    /// The channel was disabled: nobody may do anything there.
    Channel(ChannelId),
    /// The thing may do no more than `left` on the channel.
    Grant {
        thing: ThingId,
        channel: ChannelId,
        left: Actions,
    },
}

/// Hears of what is revoked, at once, in this process.
pub trait Revocations: Send + Sync {
    fn revoked(&self, what: &[Revoked]);

    /// This may have been revoked, or was and is granted again: the authority knows.
    fn doubted(&self, what: &[Revoked]);
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long an answer of the authority is trusted.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// How long a session keeps what may have been revoked while the authority does not answer.
    #[serde(with = "humantime_serde")]
    pub recheck_timeout: Duration,
    /// Whether to hear of revocations from the things stream in Redis.
    pub follow: bool,
    /// How many answers are remembered, of each kind (identities, grants).
    pub max_entries: usize,
}

/// The door: checks identities and grants against memory, and fills the memory from the authority.
///
/// Memory holds granted answers alone, and of keys only a keyed hash. It is bounded: when full, expired
/// answers go first, then others by chance.
pub struct Access {
    authority: Arc<dyn Authority>,
    config: Config,
    hasher: KeyHasher,
    identities: DashMap<KeyHash, Identity>,
    /// Things that came with a certificate, and until when they are known to be enabled.
    certified: DashMap<ThingId, Instant>,
    grants: DashMap<(ThingId, ChannelId, Action), Instant>,
    /// Grows with every revocation: permits of an earlier epoch no longer hold, and answers that were
    /// asked for in one are not remembered.
    epoch: AtomicU64,
    chance: RandomState,
}

#[derive(Clone, Copy)]
struct Identity {
    thing: ThingId,
    until: Instant,
}

impl Access {
    #[must_use]
    pub fn new(authority: Arc<dyn Authority>, config: Config) -> Self {
        Self {
            authority,
            config,
            hasher: KeyHasher::new(&rand::random()),
            identities: DashMap::new(),
            certified: DashMap::new(),
            grants: DashMap::new(),
            epoch: AtomicU64::new(0),
            chance: RandomState::new(),
        }
    }

    /// Checks credentials against memory.
    #[must_use]
    pub fn authenticate(&self, credentials: &Credentials, now: Instant) -> Verdict<Authenticated> {
        let epoch = self.epoch();
        let key = match (&credentials.proof, credentials.thing) {
            (Proof::Key(key), _) => key,
            (Proof::Certificate, Some(thing)) => {
                return match self.certified.get(&thing) {
                    Some(until) if *until > now => Verdict::Granted(Authenticated { thing, epoch }),
                    _ => Verdict::Unknown,
                };
            }
            (Proof::Certificate, None) => return Verdict::Denied,
        };
        let hash = self.hasher.hash(key.expose());
        match self.identities.get(&hash) {
            Some(known) if known.until > now => {
                if Some(known.thing) == credentials.thing {
                    let thing = known.thing;
                    Verdict::Granted(Authenticated { thing, epoch })
                } else {
                    Verdict::Denied
                }
            }
            _ => Verdict::Unknown,
        }
    }

    /// Checks credentials with the authority, and remembers the answer.
    ///
    /// # Errors
    /// [`AuthorityError::Denied`] also when the key belongs to another thing than the credentials name.
    pub async fn identify(
        &self,
        credentials: &Credentials,
    ) -> Result<Authenticated, AuthorityError> {
        let epoch = self.epoch();
        let key = match (&credentials.proof, credentials.thing) {
            (Proof::Key(key), _) => key,
            (Proof::Certificate, Some(thing)) => return self.vouch(thing, epoch).await,
            (Proof::Certificate, None) => return Err(AuthorityError::Denied),
        };
        let thing = self.authority.identify(key).await?;
        if Some(thing) != credentials.thing {
            return Err(AuthorityError::Denied);
        }
        let until = Instant::now() + self.config.ttl;
        let hash = self.hasher.hash(key.expose());
        make_room(&self.identities, &self.config, &self.chance, |known| {
            known.until
        });
        let entry = self.identities.entry(hash);
        // Looked at while the entry is locked: `forget` raises the epoch before it sweeps the entries.
        if self.epoch() == epoch {
            entry.insert(Identity { thing, until });
        }
        Ok(Authenticated { thing, epoch })
    }

    async fn vouch(&self, thing: ThingId, epoch: u64) -> Result<Authenticated, AuthorityError> {
        self.authority.vouch(thing).await?;
        let until = Instant::now() + self.config.ttl;
        make_room(&self.certified, &self.config, &self.chance, |until| *until);
        let entry = self.certified.entry(thing);
        if self.epoch() == epoch {
            entry.insert(until);
        }
        Ok(Authenticated { thing, epoch })
    }

    /// Checks a grant against memory.
    #[must_use]
    pub fn authorize(
        &self,
        thing: Authenticated,
        channel: ChannelId,
        action: Action,
        now: Instant,
    ) -> Verdict<Permit> {
        let epoch = self.epoch();
        match self.grants.get(&(thing.thing, channel, action)) {
            Some(until) if *until > now => Verdict::Granted(Permit {
                epoch,
                until: *until,
            }),
            _ => Verdict::Unknown,
        }
    }

    /// Checks a grant with the authority, and remembers the answer.
    ///
    /// # Errors
    /// [`AuthorityError::Denied`] also when the key no longer belongs to `thing`.
    pub async fn ask(
        &self,
        thing: Authenticated,
        proof: &Proof,
        channel: ChannelId,
        action: Action,
    ) -> Result<Permit, AuthorityError> {
        let epoch = self.epoch();
        match proof {
            Proof::Key(key) => {
                if self.authority.authorize(key, channel, action).await? != thing.thing {
                    return Err(AuthorityError::Denied);
                }
            }
            Proof::Certificate => self.authority.allow(thing.thing, channel, action).await?,
        }
        let until = Instant::now() + self.config.ttl;
        make_room(&self.grants, &self.config, &self.chance, |until| *until);
        let entry = self.grants.entry((thing.thing, channel, action));
        if self.epoch() == epoch {
            entry.insert(until);
        }
        Ok(Permit { epoch, until })
    }

    /// Whether `permit` still holds: nothing was revoked since, and its time is not up.
    #[must_use]
    pub fn holds(&self, permit: &Permit, now: Instant) -> bool {
        permit.epoch == self.epoch() && permit.until > now
    }

    /// Whether nothing was revoked since `permit` was asked for. Of an answer that comes late, that is to be
    /// known before anything is built on it: whoever takes away what was revoked may have been here already.
    #[must_use]
    pub fn is_current(&self, permit: &Permit) -> bool {
        permit.epoch == self.epoch()
    }

    /// Like [`Access::is_current`], of an identity.
    #[must_use]
    pub fn still_knows(&self, thing: &Authenticated) -> bool {
        thing.epoch == self.epoch()
    }

    /// Whether everything that is revoked is told here at once. If not, what was granted is to be looked at again
    /// when it is no longer remembered.
    #[must_use]
    pub fn hears_of_revocations(&self) -> bool {
        self.authority.tells_revocations()
    }

    /// How long an answer is trusted.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.config.ttl
    }

    /// How long a session keeps what may have been revoked while the authority does not answer.
    #[must_use]
    pub const fn recheck_timeout(&self) -> Duration {
        self.config.recheck_timeout
    }

    /// Forgets what was revoked. When this returns, no permit from before holds.
    pub fn forget(&self, what: &[Revoked]) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let (mut things, mut channels) = (HashSet::new(), HashSet::new());
        for revoked in what {
            match *revoked {
                Revoked::Thing(thing) | Revoked::Key(thing) => _ = things.insert(thing),
                Revoked::Channel(channel) => _ = channels.insert(channel),
                Revoked::Grant { thing, channel, .. } => {
                    for action in Action::ALL {
                        self.grants.remove(&(thing, channel, action));
                    }
                }
            }
        }
        if !things.is_empty() {
            self.identities
                .retain(|_, known| !things.contains(&known.thing));
            self.certified.retain(|thing, _| !things.contains(thing));
        }
        if !things.is_empty() || !channels.is_empty() {
            self.grants.retain(|(thing, channel, _), _| {
                !things.contains(thing) && !channels.contains(channel)
            });
        }
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("identities", &self.identities.len())
            .field("grants", &self.grants.len())
            .finish_non_exhaustive()
    }
}

/// Keeps `map` under its bound. Sweeps rarely: each sweep frees at least a sixteenth.
fn make_room<K: Eq + std::hash::Hash, V>(
    map: &DashMap<K, V>,
    config: &Config,
    chance: &RandomState,
    until: impl Fn(&V) -> Instant,
) {
    if map.len() < config.max_entries {
        return;
    }
    let now = Instant::now();
    map.retain(|_, value| until(value) > now);
    if map.len() > config.max_entries - config.max_entries / 16 {
        map.retain(|key, _| chance.hash_one(key) % 16 != chance.hash_one(now) % 16);
    }
    // With very small bounds the dice may spare everyone.
    while map.len() >= config.max_entries.max(1) {
        map.clear();
    }
}

#[cfg(test)]
mod tests;
