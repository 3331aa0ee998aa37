//! What carries the bytes of MQTT: a socket, or something that speaks a protocol of its own over one.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use crate::tls::Tls;
use crate::websocket::Web;

const READ_AND_WRITE: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Reads and writes the bytes of packets, without ever waiting.
pub(crate) enum Transport {
    Plain(Socket),
    Tls(Box<Tls>),
    Web(Box<Web>),
}

pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What a client did wrong before MQTT, or beneath it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("no PROXY header, or a malformed one")]
    Proxy,
    #[error("a PROXY header from an address that may not send one")]
    UntrustedProxy,
    #[error("no TLS, or none that was agreed on")]
    Tls,
    #[error("no certificate, or one that does not count")]
    Certificate,
    #[error("TLS for another protocol")]
    Alpn,
    #[error("no WebSocket, or not as agreed")]
    WebSocket,
    #[error("it took too long")]
    Timeout,
}

impl Fault {
    pub(crate) const ALL: [Self; 7] = [
        Self::Proxy,
        Self::UntrustedProxy,
        Self::Tls,
        Self::Certificate,
        Self::Alpn,
        Self::WebSocket,
        Self::Timeout,
    ];

    /// The `reason` of the metric.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::UntrustedProxy => "untrusted_proxy",
            Self::Tls => "tls",
            Self::Certificate => "certificate",
            Self::Alpn => "alpn",
            Self::WebSocket => "websocket",
            Self::Timeout => "timeout",
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(ErrorKind::InvalidData, fault)
    }
}

impl Transport {
    /// Has the socket watched for what comes, and if `room` is awaited, or may be beneath, for that too.
    pub(crate) fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        room: bool,
    ) -> io::Result<()> {
        let interest = match room || self.is_layered() {
            true => READ_AND_WRITE,
            false => Interest::READABLE,
        };
        match self.socket() {
            Socket::Tcp(stream) => registry.register(stream, token, interest),
            Socket::Unix(stream) => registry.register(stream, token, interest),
        }
    }

    /// Has a socket that is watched already watched for room to write, too.
    pub(crate) fn await_room(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self.socket() {
            Socket::Tcp(stream) => registry.reregister(stream, token, READ_AND_WRITE),
            Socket::Unix(stream) => registry.reregister(stream, token, READ_AND_WRITE),
        }
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self.socket() {
            Socket::Tcp(stream) => registry.deregister(stream),
            Socket::Unix(stream) => registry.deregister(stream),
        }
    }

    /// What is at the bottom.
    pub(crate) const fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.socket(),
            Self::Web(web) => web.socket(),
        }
    }

    /// Whether it speaks a protocol of its own, and so may have read more than it has handed out.
    #[inline]
    pub(crate) const fn is_layered(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Whether it is still about something else than MQTT.
    pub(crate) fn is_handshaking(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.is_handshaking(),
            Self::Web(web) => web.is_handshaking(),
        }
    }

    /// The certificate of the client, checked.
    pub(crate) fn client_certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.client_certificate(),
            Self::Web(web) => web.client_certificate(),
        }
    }

    /// Puts what was read from the socket beneath it to where it belongs: what is for MQTT comes back.
    pub(crate) fn feed(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Plain(_) => return bytes,
            Self::Tls(tls) => tls.feed(bytes),
            Self::Web(web) => web.feed(bytes),
        }
        Vec::new()
    }

    /// The client is let in, and may take more room.
    pub(crate) fn welcome(&mut self) {
        if let Self::Web(web) = self {
            web.welcome();
        }
    }

    /// Says that nothing more will be written, once everything is.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.close(),
            Self::Tls(tls) => tls.close(),
            Self::Web(web) => web.close(),
        }
    }

    /// Writes what it kept when the socket took no more.
    #[inline]
    pub(crate) fn push(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.push(),
            Self::Web(web) => web.push(),
        }
    }
}

impl Read for Transport {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
            Self::Web(web) => web.read(buffer),
        }
    }
}

impl Write for Transport {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
            Self::Web(web) => web.write(bytes),
        }
    }

    #[inline]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(slices),
            Self::Tls(tls) => tls.write_vectored(slices),
            Self::Web(web) => web.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

impl Socket {
    pub(crate) fn close(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Read for Socket {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    #[inline]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
