//! What carries the bytes of MQTT: a socket, or something that speaks a protocol of its own over one.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

/// Reads and writes the bytes of packets, without ever waiting.
pub(crate) enum Transport {
    Plain(Socket),
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
    #[error("it took too long")]
    Timeout,
}

impl Fault {
    pub(crate) const ALL: [Self; 3] = [Self::Proxy, Self::UntrustedProxy, Self::Timeout];

    /// The `reason` of the metric.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::UntrustedProxy => "untrusted_proxy",
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
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self.socket() {
            Socket::Tcp(stream) => registry.register(stream, token, interest),
            Socket::Unix(stream) => registry.register(stream, token, interest),
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
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.close(),
        }
    }
}

impl Read for Transport {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
        }
    }
}

impl Write for Transport {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
        }
    }

    #[inline]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
