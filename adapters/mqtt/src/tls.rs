//! TLS over a socket, without waiting: what cannot be written yet is kept within a bound.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::server::ServerConnection;
use rustls::{Error, ServerConfig};

use crate::transport::{Fault, Socket};

/// Reads of the socket for one read of packets, before others get their turn.
const ROUNDS: usize = 64;

pub(crate) struct Tls {
    connection: ServerConnection,
    socket: Socket,
    /// What was read from the socket before TLS began.
    early: Vec<u8>,
    /// Nothing more is to be said than what waits.
    closing: bool,
    /// The client broke the protocol: what it sends now means nothing.
    broken: bool,
}

impl Tls {
    pub(crate) fn new(config: Arc<ServerConfig>, socket: Socket) -> io::Result<Self> {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Self {
            connection,
            socket,
            early: Vec::new(),
            closing: false,
            broken: false,
        })
    }

    pub(crate) const fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Puts `bytes` in front of what the socket has.
    pub(crate) fn feed(&mut self, bytes: Vec<u8>) {
        self.early = bytes;
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The certificate of the client, checked.
    pub(crate) fn client_certificate(&self) -> Option<&[u8]> {
        if self.connection.is_handshaking() {
            return None;
        }
        Some(self.connection.peer_certificates()?.first()?)
    }

    /// Says goodbye, and closes this side when all is written.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        if !self.closing {
            self.closing = true;
            self.connection.send_close_notify();
        }
        self.push()
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn push(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.closing {
            self.socket.close()?;
        }
        Ok(())
    }

    /// Whether something waits for the socket to take more.
    pub(crate) fn is_stuck(&self) -> bool {
        self.connection.wants_write()
    }

    fn fill(&mut self) -> io::Result<usize> {
        if self.early.is_empty() {
            return self.connection.read_tls(&mut self.socket);
        }
        let mut rest = &self.early[..];
        let taken = self.connection.read_tls(&mut rest)?;
        self.early.drain(..taken);
        Ok(taken)
    }
}

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.broken {
            return self.socket.read(buffer);
        }
        for _ in 0..ROUNDS {
            match self.connection.reader().read(buffer) {
                Ok(len) => return Ok(len),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The end came without a goodbye: packets have lengths, so nothing can have been cut off unseen.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) => return Err(error),
            }
            if self.fill()? == 0 {
                return Ok(0);
            }
            let processed = self.connection.process_new_packets();
            if let Err(error) = processed {
                tracing::debug!(%error, "cannot read TLS");
                self.broken = true;
                // The client is told why, if its socket takes it.
                let _ = self.close();
                return Err(fault(&error).into());
            }
            self.push()?;
        }
        Err(ErrorKind::Interrupted.into())
    }
}

impl Write for Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.broken || self.closing {
            return Ok(slices.iter().map(|slice| slice.len()).sum());
        }
        self.push()?;
        if self.is_stuck() {
            return Err(ErrorKind::WouldBlock.into());
        }
        // As much as one buffer of the connection takes.
        let taken = self.connection.writer().write_vectored(slices)?;
        self.push()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()?;
        match self.is_stuck() {
            true => Err(ErrorKind::WouldBlock.into()),
            false => Ok(()),
        }
    }
}

fn fault(error: &Error) -> Fault {
    match error {
        Error::InvalidCertificate(_)
        | Error::InvalidCertRevocationList(_)
        | Error::NoCertificatesPresented => Fault::Certificate,
        Error::NoApplicationProtocol => Fault::Alpn,
        _ => Fault::Tls,
    }
}
