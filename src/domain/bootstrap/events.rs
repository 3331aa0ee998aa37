//! Operations on configurations as events.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::event::{self, Event, Stream};
use crate::identity::{ChannelId, ThingId, Timestamp, UserId};
use crate::listing::Page;

use super::model::{Certificates, ChannelCopy, Config, Filter, State};

/// How private keys of clients are announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrivateKeys {
    /// As `sha256:` and the SHA-256 of the key.
    Fingerprint,
    /// As they are.
    Plain,
}

impl PrivateKeys {
    fn show(self, certificates: &Certificates) -> String {
        use std::fmt::Write;
        let key = certificates.client_key.expose();
        if key.is_empty() || self == Self::Plain {
            return key.to_owned();
        }
        let mut shown = "sha256:".to_owned();
        for byte in Sha256::digest(key.as_bytes()) {
            write!(shown, "{byte:02x}").expect("invariant: text takes text");
        }
        shown
    }
}

fn event(
    operation: &'static str,
    fields: impl IntoIterator<Item = (&'static str, String)>,
) -> Event {
    Event::operation(Stream::Bootstrap, operation, fields)
}

/// `[a, b]`; nothing without channels.
fn channels(channels: &[ChannelCopy]) -> String {
    match channels {
        [] => String::new(),
        _ => format!("[{}]", ids(channels)),
    }
}

fn ids(channels: &[ChannelCopy]) -> String {
    let ids: Vec<String> = channels.iter().map(|it| it.id.to_string()).collect();
    ids.join(", ")
}

fn state(state: State) -> (&'static str, String) {
    ("state", state.number().to_string())
}

/// What creating, viewing and fetching a configuration have in common.
fn whole(config: &Config) -> [(&'static str, String); 7] {
    [
        ("thing_id", config.thing.to_string()),
        ("owner", config.owner.to_string()),
        ("name", config.name.clone()),
        ("content", config.content.clone()),
        ("channels", channels(&config.channels)),
        ("client_cert", config.certificates.client_cert.clone()),
        ("ca_cert", config.certificates.ca_cert.clone()),
    ]
}

pub(super) fn created(config: &Config, keys: PrivateKeys) -> Event {
    let external_id = ("external_id", config.external_id.clone());
    let client_key = ("client_key", keys.show(&config.certificates));
    let own = [state(config.state), external_id, client_key];
    event("config.create", own.into_iter().chain(whole(config)))
}

pub(super) fn viewed(config: &Config) -> Event {
    let own = [
        state(config.state),
        ("external_id", config.external_id.clone()),
    ];
    event("config.view", own.into_iter().chain(whole(config)))
}

pub(super) fn listed(filter: &Filter, page: Page) -> Event {
    let mut wanted = Map::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            wanted.insert(name.to_owned(), Value::String(value));
        }
    };
    add("state", filter.state.map(|it| it.number().to_string()));
    add("external_id", filter.external_id.clone());
    add("thing_id", filter.thing.map(|it| it.to_string()));
    add("thing_key", filter.thing_key.as_ref().map(|_| "***".into()));
    add("name", filter.name.clone());
    let wanted = match wanted.is_empty() {
        true => String::new(),
        false => event::json(&wanted),
    };
    event(
        "config.list",
        [
            ("offset", page.offset.to_string()),
            ("limit", page.limit.to_string()),
            ("full_match", wanted),
        ],
    )
}

pub(super) fn updated(config: &Config) -> Event {
    event(
        "config.update",
        [
            state(config.state),
            ("thing_id", config.thing.to_string()),
            ("name", config.name.clone()),
            ("content", config.content.clone()),
        ],
    )
}

/// The thing belongs to somebody else, and its configuration with it.
pub(super) fn moved(config: &Config, owner: UserId) -> Event {
    let mut event = updated(config);
    let owner = ("owner".into(), owner.to_string().into());
    event.fields.push(owner);
    event
}

/// Clients know the id of the thing as `thing_key` here.
pub(super) fn certified(thing: ThingId, certificates: &Certificates, keys: PrivateKeys) -> Event {
    event(
        "cert.update",
        [
            ("thing_key", thing.to_string()),
            ("client_cert", certificates.client_cert.clone()),
            ("client_key", keys.show(certificates)),
            ("ca_cert", certificates.ca_cert.clone()),
        ],
    )
}

pub(super) fn removed(thing: ThingId) -> Event {
    event("config.remove", [("thing_id", thing.to_string())])
}

pub(super) fn fetched(config: &Config, keys: PrivateKeys) -> Event {
    let own = [
        ("external_id", config.external_id.clone()),
        ("success", "1".into()),
        ("client_key", keys.show(&config.certificates)),
    ];
    event("thing.bootstrap", own.into_iter().chain(whole(config)))
}

pub(super) fn not_fetched(external_id: &str) -> Event {
    event(
        "thing.bootstrap",
        [
            ("external_id", external_id.to_owned()),
            ("success", "0".into()),
        ],
    )
}

pub(super) fn state_changed(thing: ThingId, to: State) -> Event {
    let now = Timestamp::now();
    let mut event = event(
        "thing.state_change",
        [
            ("thing_id", thing.to_string()),
            state(to),
            ("timestamp", seconds(now)),
        ],
    );
    event.occurred_at = now;
    event
}

pub(super) fn connections_updated(thing: ThingId, channels: &[ChannelCopy]) -> Event {
    let now = Timestamp::now();
    let mut event = event(
        "thing.update_connections",
        [
            ("thing_id", thing.to_string()),
            ("channels", ids(channels)),
            ("timestamp", seconds(now)),
        ],
    );
    event.occurred_at = now;
    event
}

fn seconds(at: Timestamp) -> String {
    (at.0 / 1_000_000_000).to_string()
}

pub(super) fn thing_gone(thing: ThingId) -> Event {
    event("config.remove_handler", [("config_id", thing.to_string())])
}

pub(super) fn channel_gone(config: ThingId, channel: ChannelId) -> Event {
    event(
        "config.remove_handler",
        [
            ("config_id", config.to_string()),
            ("channel_id", channel.to_string()),
        ],
    )
}

pub(super) fn channel_updated(channel: &ChannelCopy) -> Event {
    event(
        "channel.update_handler",
        [
            ("channel_id", channel.id.to_string()),
            ("name", channel.name.clone()),
            ("metadata", event::json(&channel.metadata)),
        ],
    )
}

pub(super) fn disconnected(thing: ThingId, channel: ChannelId) -> Event {
    event(
        "thing.disconnect",
        [
            ("thing_id", thing.to_string()),
            ("channel_id", channel.to_string()),
        ],
    )
}
