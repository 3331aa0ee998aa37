//! What can be set about the front.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use rollcall_domain::setting::{choice, one_or_many, some_choice};
use rollcall_tls::server::{ClientCertificate, Version};
use serde::{Deserialize, Deserializer};

use crate::connack::{ResponseInformation, ServerReference};
use crate::limits::Limits;
use crate::packet::QoS;
use crate::sys;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who may do what.
    #[serde(deserialize_with = "choice")]
    pub access: AccessMode,
    /// Whether MQTT 3.1 (`MQIsdp`) is spoken too.
    pub mqtt31: bool,
    /// Addresses to listen on without encryption; port 0 takes any free one.
    #[serde(deserialize_with = "one_or_many")]
    pub listen: Vec<Address>,
    /// Further ones, by name.
    pub listeners: BTreeMap<String, Listener>,
    /// The mode of the files of unix sockets: who may connect.
    pub unix_mode: Mode,
    /// Whether connections to `listen` must begin with a PROXY header, of version 1 or 2.
    pub proxy_protocol: bool,
    pub tls: Tls,
    pub websocket: WebSocket,
    /// Networks that may send one; none is any.
    #[serde(deserialize_with = "one_or_many")]
    pub proxy_from: Vec<IpNet>,
    /// The highest QoS that is taken and given.
    #[serde(deserialize_with = "qos")]
    pub max_qos: QoS,
    /// Whether messages may be retained.
    pub retain_available: bool,
    /// The longest keep-alive of an MQTT 5 client; 0 leaves it to the client.
    #[serde(with = "humantime_serde")]
    pub max_keep_alive: Duration,
    /// What MQTT 5 clients get that ask for response information; empty for nothing.
    pub response_information: ResponseInformation,
    /// The server that MQTT 5 clients are sent to when this one is full or stops; empty for none.
    pub server_reference: ServerReference,
    /// Whether what is said to be UTF-8 (MQTT 5) must be.
    pub check_payload_format: bool,
    /// How the server is doing, on `$SYS` topics.
    pub sys: sys::Config,
    /// Threads that own sockets and sessions; 0 is one per core.
    pub workers: usize,
    /// Connections at one time; later ones are closed unread.
    pub max_connections: usize,
    /// From accept to a complete CONNECT.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// The largest packet taken from a client, header included.
    pub max_packet_size: ByteSize,
    /// QoS 1 and 2 messages under way at one time, each direction of a session.
    pub max_inflight: u16,
    /// Topic aliases a client may set up.
    pub max_topic_alias: u16,
    /// Topic aliases set up toward a client that takes them; 0 is none.
    pub max_topic_alias_out: u16,
    /// Subscriptions of a session.
    pub max_subscriptions: usize,
    /// Their filters together.
    pub max_subscription_bytes: ByteSize,
    /// What a session may leave unread: sent but not taken, and queued behind the window.
    pub session_queue_bytes: ByteSize,
    /// QoS 1 and 2 messages queued behind the window of a session, connected or not.
    pub session_queue_messages: usize,
    /// What sessions and messages survive.
    #[serde(deserialize_with = "choice")]
    pub durability: Durability,
    /// Between the beginnings of two commits of sessions and messages, at least.
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    /// The longest a session is kept without a connection; longer wishes are cut to this.
    #[serde(with = "humantime_serde")]
    pub max_session_expiry: Duration,
    /// Sessions kept at one time, connected or not.
    pub max_sessions: usize,
    /// Retained messages.
    pub max_retained: usize,
    /// Bytes of all retained messages.
    pub max_retained_bytes: ByteSize,
    /// Questions to the things service that may be open at one time; later ones are refused as busy.
    pub max_questions: usize,
    pub limits: Limits,
    pub drain: Drain,
}

/// How a stop goes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// From the signal to the end of the program.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// Connections that are closed in a second, if there is time.
    pub per_second: u32,
}

impl Config {
    /// A value that makes no sense: its key, and what it should be.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let found = [
            (
                self.connect_timeout.is_zero(),
                "mqtt.connect_timeout",
                "longer than 0s",
            ),
            (
                self.max_subscriptions == 0,
                "mqtt.max_subscriptions",
                "at least 1",
            ),
            (
                self.max_subscription_bytes.as_u64() == 0,
                "mqtt.max_subscription_bytes",
                "at least 1B",
            ),
            (
                self.commit_interval > Duration::from_secs(1),
                "mqtt.commit_interval",
                "at most 1s",
            ),
            (
                self.max_connections == 0,
                "mqtt.max_connections",
                "at least 1",
            ),
            (self.max_sessions == 0, "mqtt.max_sessions", "at least 1"),
            // Each has a buffer, a queue and files of its own.
            (self.workers > 1024, "mqtt.workers", "at most 1024"),
            (
                self.sys.interval < Duration::from_millis(100) && !self.sys.interval.is_zero(),
                "mqtt.sys.interval",
                "0s, or at least 100ms",
            ),
            (
                self.drain.deadline.is_zero(),
                "mqtt.drain.deadline",
                "longer than 0s",
            ),
            (
                self.drain.per_second == 0,
                "mqtt.drain.per_second",
                "at least 1",
            ),
            (self.max_questions == 0, "mqtt.max_questions", "at least 1"),
        ]
        .into_iter()
        .find_map(|(wrong, key, problem)| wrong.then_some((key, problem)));
        found.or_else(|| self.limits.problem())
    }

    /// Whether things may come in without a key, by their certificates.
    #[must_use]
    pub fn takes_certificates_for_keys(&self) -> bool {
        self.listeners.values().any(|listener| {
            let tls = self.tls.with(&listener.tls);
            !listener.listen.is_empty()
                && matches!(listener.transport, Carrier::Tls | Carrier::Wss)
                && tls.client_certificate != ClientCertificate::None
                && tls.certificate_login == CertificateLogin::InsteadOfKey
        })
    }
}

/// How the clients of a listener are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    #[default]
    Tcp,
    Tls,
    Ws,
    Wss,
}

/// What listeners with TLS have in common; each may have some of it otherwise.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Files (PEM) of certificates, each with those that vouch for it.
    #[serde(deserialize_with = "one_or_many")]
    pub certificate: Vec<PathBuf>,
    /// Files (PEM) of their private keys, in the same order.
    #[serde(deserialize_with = "one_or_many")]
    pub key: Vec<PathBuf>,
    #[serde(deserialize_with = "choice")]
    pub min_version: Version,
    #[serde(deserialize_with = "choice")]
    pub client_certificate: ClientCertificate,
    /// Files (PEM) of those who vouch for clients.
    #[serde(deserialize_with = "one_or_many")]
    pub client_ca: Vec<PathBuf>,
    /// Files (PEM) of lists of revoked certificates.
    #[serde(deserialize_with = "one_or_many")]
    pub client_crl: Vec<PathBuf>,
    #[serde(deserialize_with = "choice")]
    pub certificate_login: CertificateLogin,
}

/// What is otherwise on one listener.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsChanges {
    #[serde(default, deserialize_with = "some_one_or_many")]
    pub certificate: Option<Vec<PathBuf>>,
    #[serde(default, deserialize_with = "some_one_or_many")]
    pub key: Option<Vec<PathBuf>>,
    #[serde(default, deserialize_with = "some_choice")]
    pub min_version: Option<Version>,
    #[serde(default, deserialize_with = "some_choice")]
    pub client_certificate: Option<ClientCertificate>,
    #[serde(default, deserialize_with = "some_one_or_many")]
    pub client_ca: Option<Vec<PathBuf>>,
    #[serde(default, deserialize_with = "some_one_or_many")]
    pub client_crl: Option<Vec<PathBuf>>,
    #[serde(default, deserialize_with = "some_choice")]
    pub certificate_login: Option<CertificateLogin>,
}

impl Tls {
    pub(crate) fn with(&self, changes: &TlsChanges) -> Self {
        let changes = changes.clone();
        let common = self.clone();
        Self {
            certificate: changes.certificate.unwrap_or(common.certificate),
            key: changes.key.unwrap_or(common.key),
            min_version: changes.min_version.unwrap_or(common.min_version),
            client_certificate: changes
                .client_certificate
                .unwrap_or(common.client_certificate),
            client_ca: changes.client_ca.unwrap_or(common.client_ca),
            client_crl: changes.client_crl.unwrap_or(common.client_crl),
            certificate_login: changes
                .certificate_login
                .unwrap_or(common.certificate_login),
        }
    }
}

/// What the certificate of a client is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateLogin {
    /// The thing that it names has to show its key, too.
    WithKey,
    /// It is all that has to be shown.
    InsteadOfKey,
}

/// What listeners with WebSocket have in common; each may have some of it otherwise.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSocket {
    pub path: String,
    /// Where pages of browsers may be from; none is anywhere.
    #[serde(deserialize_with = "one_or_many")]
    pub origins: Vec<String>,
    /// The largest message of a client, fragments together.
    pub max_message_size: ByteSize,
}

/// What is otherwise on one listener.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSocketChanges {
    pub path: Option<String>,
    #[serde(default, deserialize_with = "some_one_or_many")]
    pub origins: Option<Vec<String>>,
    pub max_message_size: Option<ByteSize>,
}

/// What sessions that outlive their connections, and retained messages, have survived when a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The loss of power: they are on the disk.
    Disk,
    /// The end of this process: the operating system has them.
    Process,
    /// Nothing: they end with this process.
    Memory,
}

/// Who is let in, and what they may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    /// Things that prove who they are; each does what it was granted.
    Things,
    /// Everybody may do everything, and nobody goes on the roll.
    Open,
}

/// A further listener. What it does not set is as in `[mqtt]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Addresses to listen on; none switches it off.
    #[serde(deserialize_with = "one_or_many")]
    pub listen: Vec<Address>,
    #[serde(default, deserialize_with = "choice")]
    pub transport: Carrier,
    #[serde(default)]
    pub tls: TlsChanges,
    #[serde(default)]
    pub websocket: WebSocketChanges,
    #[serde(default, deserialize_with = "some_choice")]
    pub access: Option<AccessMode>,
    pub unix_mode: Option<Mode>,
    pub proxy_protocol: Option<bool>,
    #[serde(default, deserialize_with = "some_one_or_many")]
    pub proxy_from: Option<Vec<IpNet>>,
    /// Connections of this listener at one time; `mqtt.max_connections` bounds them all.
    pub max_connections: Option<usize>,
    #[serde(default, with = "humantime_serde::option")]
    pub connect_timeout: Option<Duration>,
    pub max_packet_size: Option<ByteSize>,
    /// As in `[mqtt.limits]`; connections by other listeners count too.
    pub max_connections_per_address: Option<u32>,
    pub connect_rate_per_address: Option<u32>,
}

/// Where to listen: `0.0.0.0:1883`, or `unix:/run/rollcall/mqtt.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, thiserror::Error)]
#[error("expected an address such as \"0.0.0.0:1883\" or \"unix:/run/rollcall/mqtt.sock\"")]
pub struct MalformedAddress;

impl FromStr for Address {
    type Err = MalformedAddress;

    fn from_str(text: &str) -> Result<Self, MalformedAddress> {
        match text.strip_prefix("unix:") {
            Some(path) if Path::new(path).is_absolute() => Ok(Self::Unix(path.into())),
            Some(_) => Err(MalformedAddress),
            None => text.parse().map(Self::Tcp).map_err(|_| MalformedAddress),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The mode of a file, in octal.
#[derive(Clone, Copy, Debug)]
pub struct Mode(pub u32);

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        u32::from_str_radix(&text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("expected the mode of a file such as \"0660\""))
    }
}

fn some_one_or_many<'de, T, D>(input: D) -> Result<Option<Vec<T>>, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    one_or_many(input).map(Some)
}

fn qos<'de, D: Deserializer<'de>>(input: D) -> Result<QoS, D::Error> {
    QoS::from_bits(u8::deserialize(input)?)
        .ok_or_else(|| serde::de::Error::custom("expected 0, 1 or 2"))
}
