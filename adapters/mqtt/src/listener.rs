//! Where the front listens: each listener with its own settings, and the sockets of all.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytesize::ByteSize;
use metrics::{Counter, Gauge};
use mio::{Interest, Registry, Token};
use rollcall_domain::presence::Peer;
use rollcall_tls::CertificateError;
use rollcall_tls::server::Certificates;
use socket2::{Domain, Protocol, SockAddr, Type};

use crate::certificates;
use crate::config::{self, AccessMode, Address, Carrier, CertificateLogin, Config};
use crate::limits::addresses::Allowance;
use crate::metrics::{fault_count, of_listener_count, of_listener_level};
use crate::proxy::Proxies;
use crate::tls::Tls;
use crate::transport::{Fault, Socket, Transport};
use crate::websocket::{Lower, Terms, Web};
use crate::worker::MAX_CONNECT;

/// The name of what `mqtt.listen` opens.
const MAIN: &str = "mqtt";
/// Connections that wait to be accepted; the kernel may allow fewer.
const BACKLOG: i32 = 4096;

/// What is so on one listener; a connection knows which one it came by.
pub(crate) struct Listener {
    pub(crate) name: Box<str>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) unix_mode: u32,
    pub(crate) access: AccessMode,
    pub(crate) certificates: Option<Certificates>,
    pub(crate) certificate_login: CertificateLogin,
    websocket: Option<Terms>,
    /// Those who must say for whom they speak.
    pub(crate) proxies: Option<Proxies>,
    /// Of its own, beside the bound of all.
    pub(crate) max_connections: usize,
    pub(crate) connect_timeout: Duration,
    /// The largest packet, header included.
    pub(crate) max_packet: u32,
    /// What each address may have here.
    pub(crate) per_address: Allowance,
    pub(crate) connections: AtomicUsize,
    pub(crate) accepted: Counter,
    pub(crate) open: Gauge,
    /// By [`Fault`].
    faults: [Counter; Fault::ALL.len()],
}

#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    #[error("{0}.max_packet_size must be from 64 B to 256 MiB")]
    MaxPacketSize(Box<str>),
    #[error("{0}.max_connections must be at least 1")]
    MaxConnections(Box<str>),
    #[error(
        "mqtt.listeners.{0}: a name is letters, digits, - and _, and none of mqtt, grpc, http, instance"
    )]
    Name(Box<str>),
    #[error("{0}.websocket.path must begin with /")]
    Path(Box<str>),
    #[error("{0}.websocket.origins must be such as https://app.example.org")]
    Origins(Box<str>),
    #[error("{0}.websocket.max_message_size must be at least max_packet_size")]
    MaxMessageSize(Box<str>),
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    #[error("nothing to listen on: set mqtt.listen or the listen of one of mqtt.listeners")]
    None,
}

/// The listeners that are switched on, that of `mqtt.listen` first.
pub(crate) fn resolve(config: &Config) -> Result<Vec<Listener>, ListenerError> {
    let mut all = Vec::new();
    if !config.listen.is_empty() {
        let main = config::Listener {
            listen: config.listen.clone(),
            ..config::Listener::default()
        };
        all.push(Listener::new(MAIN, &main, config)?);
    }
    for (name, settings) in &config.listeners {
        let sound = |it: u8| it.is_ascii_alphanumeric() || b"-_".contains(&it);
        let taken = [MAIN, "grpc", "http", "instance"].contains(&name.as_str());
        if taken || name.is_empty() || !name.bytes().all(sound) {
            return Err(ListenerError::Name(name.as_str().into()));
        }
        let listener = Listener::new(name, settings, config)?;
        if !settings.listen.is_empty() {
            all.push(listener);
        }
    }
    if all.is_empty() {
        return Err(ListenerError::None);
    }
    Ok(all)
}

/// What the settings of a listener are called.
pub(crate) fn key(name: &str) -> String {
    match name {
        MAIN => "mqtt".to_owned(),
        name => format!("mqtt.listeners.{name}"),
    }
}

impl Listener {
    fn new(
        name: &str,
        settings: &config::Listener,
        config: &Config,
    ) -> Result<Self, ListenerError> {
        let key = key(name);
        let key = key.as_str();
        let max_packet_size: ByteSize = settings.max_packet_size.unwrap_or(config.max_packet_size);
        let max_packet = u32::try_from(max_packet_size.as_u64())
            .ok()
            .filter(|max| (64..=256 << 20).contains(max))
            .ok_or_else(|| ListenerError::MaxPacketSize(key.into()))?;
        let max_connections = settings.max_connections.unwrap_or(config.max_connections);
        if max_connections == 0 {
            return Err(ListenerError::MaxConnections(key.into()));
        }
        let limits = &config.limits;
        let tls = config.tls.with(&settings.tls);
        let certificates = match settings.transport {
            _ if settings.listen.is_empty() => None,
            Carrier::Tcp | Carrier::Ws => None,
            Carrier::Tls | Carrier::Wss => {
                let key = format!("{key}.tls");
                Some(certificates::read(key, &tls, settings.transport)?)
            }
        };
        let websocket = match settings.transport {
            Carrier::Tcp | Carrier::Tls => None,
            Carrier::Ws | Carrier::Wss => Some(terms(key, settings, config, max_packet)?),
        };
        Ok(Self {
            name: name.into(),
            addresses: settings.listen.clone(),
            unix_mode: settings.unix_mode.unwrap_or(config.unix_mode).0,
            certificates,
            certificate_login: tls.certificate_login,
            websocket,
            proxies: settings
                .proxy_protocol
                .unwrap_or(config.proxy_protocol)
                .then(|| Proxies {
                    from: settings
                        .proxy_from
                        .as_ref()
                        .unwrap_or(&config.proxy_from)
                        .clone(),
                }),
            access: settings.access.unwrap_or(config.access),
            max_connections,
            connect_timeout: settings.connect_timeout.unwrap_or(config.connect_timeout),
            max_packet,
            per_address: Allowance::new(
                settings
                    .max_connections_per_address
                    .unwrap_or(limits.max_connections_per_address),
                settings
                    .connect_rate_per_address
                    .unwrap_or(limits.connect_rate_per_address),
                limits.connect_burst,
            ),
            connections: AtomicUsize::new(0),
            accepted: of_listener_count(
                "connections_accepted",
                "Connections accepted, before any packet, by listener",
                name,
            ),
            open: of_listener_level(
                "connections",
                "Connections that are open, by listener",
                name,
            ),
            faults: Fault::ALL.map(|fault| fault_count(name, fault)),
        })
    }

    /// What carries the packets of a connection that was accepted here.
    pub(crate) fn carry(&self, socket: Socket) -> io::Result<Transport> {
        let tls = match &self.certificates {
            None => Err(socket),
            Some(certificates) => Ok(Box::new(Tls::new(certificates.current(), socket)?)),
        };
        Ok(match (tls, &self.websocket) {
            (Err(socket), None) => Transport::Plain(socket),
            (Ok(tls), None) => Transport::Tls(tls),
            (lower, Some(terms)) => {
                let lower = lower.map_or_else(Lower::Plain, Lower::Tls);
                Transport::Web(Box::new(Web::new(lower, terms.clone())))
            }
        })
    }

    pub(crate) fn count(&self, fault: Fault) {
        self.faults[fault as usize].increment(1);
    }
}

fn terms(
    key: &str,
    settings: &config::Listener,
    config: &Config,
    max_packet: u32,
) -> Result<Terms, ListenerError> {
    let (own, common) = (&settings.websocket, &config.websocket);
    let path = own.path.as_ref().unwrap_or(&common.path);
    if !path.starts_with('/') {
        return Err(ListenerError::Path(key.into()));
    }
    let origins = own.origins.as_ref().unwrap_or(&common.origins);
    // As browsers write them: no path, and no slash at the end. Pages that are from nowhere are "null".
    let is_origin = |it: &String| {
        it == "null"
            || it
                .split_once("://")
                .is_some_and(|(_, at)| !at.is_empty() && !at.contains('/'))
    };
    if !origins.iter().all(is_origin) {
        return Err(ListenerError::Origins(key.into()));
    }
    let most = own.max_message_size.unwrap_or(common.max_message_size);
    let max_message = usize::try_from(most.as_u64()).unwrap_or(usize::MAX);
    if max_message < max_packet as usize {
        return Err(ListenerError::MaxMessageSize(key.into()));
    }
    Ok(Terms {
        path: path.as_str().into(),
        origins: origins.clone(),
        max_message,
        max_first_message: max_message.min(MAX_CONNECT as usize),
        mqtt31: config.mqtt31,
    })
}

/// A socket that listens, for one worker or before there are workers.
pub(crate) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Door {
    pub(crate) fn open(address: &Address, unix_mode: u32) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => listen(*address).map(Self::Tcp),
            Address::Unix(path) => listen_at(path, unix_mode).map(Self::Unix),
        }
    }

    /// Where it really listens.
    pub(crate) fn address(&self, wanted: &Address) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(_) => Ok(wanted.clone()),
        }
    }

    /// The same socket, to be watched by a worker.
    pub(crate) fn watched(&self, listener: usize) -> io::Result<Watched> {
        let socket = match self {
            Self::Tcp(socket) => {
                WatchedSocket::Tcp(mio::net::TcpListener::from_std(socket.try_clone()?))
            }
            Self::Unix(socket) => {
                WatchedSocket::Unix(mio::net::UnixListener::from_std(socket.try_clone()?))
            }
        };
        Ok(Watched { socket, listener })
    }
}

/// A socket that a worker accepts from, and whose listener it is.
pub(crate) struct Watched {
    socket: WatchedSocket,
    pub(crate) listener: usize,
}

enum WatchedSocket {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

impl Watched {
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.socket {
            WatchedSocket::Tcp(socket) => registry.register(socket, token, Interest::READABLE),
            WatchedSocket::Unix(socket) => registry.register(socket, token, Interest::READABLE),
        }
    }

    pub(crate) fn accept(&self) -> io::Result<(Socket, Peer)> {
        match &self.socket {
            WatchedSocket::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                Ok((Socket::Tcp(stream), Peer::Ip(peer)))
            }
            WatchedSocket::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                Ok((Socket::Unix(stream), Peer::Unix))
            }
        }
    }
}

/// One socket for all workers (they take turns at accepting): a second server on the address is refused.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A restart need not wait for connections of the last run to be forgotten by the kernel.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Without it small packets wait for the acknowledgement of earlier ones. Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn listen_at(path: &Path, mode: u32) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before it listens nobody can connect, whatever the mode was.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes the file of a run that was killed out of the way; never one that somebody listens at, nor a file
/// that is no socket.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        ));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "somebody listens there",
        )),
        Err(error) => Err(error),
    }
}

/// The files of unix sockets: removed when the front has stopped, if they are still its own.
#[derive(Default)]
pub(crate) struct SocketFiles(Vec<(PathBuf, (u64, u64))>);

impl SocketFiles {
    pub(crate) fn add(&mut self, address: &Address) -> io::Result<()> {
        if let Address::Unix(path) = address {
            self.0.push((path.clone(), identity(path)?));
        }
        Ok(())
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for (path, own) in &self.0 {
            if identity(path).is_ok_and(|found| found == *own)
                && let Err(error) = fs::remove_file(path)
            {
                tracing::warn!(%error, path = %path.display(), "cannot remove a unix socket");
            }
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_unix_socket_is_taken_from_the_dead_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mqtt.sock");
        let address = Address::Unix(path.clone());

        let first = Door::open(&address, 0o640).expect("free");
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let taken = Door::open(&address, 0o640).map(|_| ()).expect_err("taken");
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        drop(first);
        let second = Door::open(&address, 0o600).expect("nobody listens any more");

        let mut files = SocketFiles::default();
        files.add(&address).expect("there");
        drop(second);
        drop(files);
        assert!(!path.exists());

        fs::write(&path, "precious").expect("a file");
        let no_socket = Door::open(&address, 0o600)
            .map(|_| ())
            .expect_err("no socket");
        assert_eq!(no_socket.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).expect("kept"), "precious");
    }
}
