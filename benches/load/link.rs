//! One session's socket, and the opening of many sessions.

use crate::broker::{Broker, Guest};
use crate::mqtt::{self, Packet};
use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream as BlockingStream;
use std::time::Duration;

/// Handshakes under way at once while sessions are opened.
const OPENING: usize = 128;
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// A session that is wanted: who, under which name, and what it subscribes to.
pub(crate) struct Wanted<'a> {
    pub(crate) client_id: String,
    pub(crate) guest: &'a Guest,
    pub(crate) filter: Option<(String, u8)>,
}

/// Opens all sessions, in order; each has its CONNACK and its SUBACK when this returns.
pub(crate) fn open(broker: &Broker, wanted: &[Wanted<'_>]) -> Result<Vec<BlockingStream>> {
    let mut sessions = Vec::with_capacity(wanted.len());
    for wanted in wanted.chunks(OPENING) {
        let first = sessions.len();
        for (index, session) in wanted.iter().enumerate() {
            let mut stream = BlockingStream::connect(broker.address(first + index))
                .with_context(|| format!("cannot connect session {}", first + index + 1))?;
            stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
            stream.set_nodelay(true)?;
            stream.write_all(&mqtt::connect(&session.client_id, session.guest.login()))?;
            sessions.push(stream);
        }
        for (stream, session) in sessions[first..].iter_mut().zip(wanted) {
            match reply::<4>(stream)? {
                Packet::Connack { code: 0 } => {}
                Packet::Connack { code } => {
                    bail!("{} was refused with code {code}", session.client_id)
                }
                _ => bail!("{} got no CONNACK first", session.client_id),
            }
            if let Some((filter, qos)) = &session.filter {
                stream.write_all(&mqtt::subscribe(filter, *qos))?;
            }
        }
        for (stream, session) in sessions[first..].iter_mut().zip(wanted) {
            let Some((filter, qos)) = &session.filter else {
                continue;
            };
            match reply::<5>(stream)? {
                Packet::Suback { granted } => {
                    ensure!(granted == *qos, "{filter} was granted {granted:#04x}")
                }
                _ => bail!("{} got no SUBACK", session.client_id),
            }
        }
    }
    Ok(sessions)
}

/// Reads one packet of exactly `N` bytes: the length the expected answer has.
fn reply<const N: usize>(stream: &mut BlockingStream) -> Result<Packet> {
    let mut bytes = [0; N];
    stream
        .read_exact(&mut bytes)
        .context("no answer to a handshake")?;
    let (packet, _) = mqtt::next(&bytes)?.context("an answer of another length was due")?;
    Ok(packet)
}

/// A session under load: what is still to be written, and the piece of a packet read so far.
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    pub(crate) outbox: Vec<u8>,
    written: usize,
    piece: Vec<u8>,
}

/// How far reading got.
pub(crate) enum Filled {
    /// So many bytes are in the buffer, and the socket may hold more.
    More(usize),
    /// So many bytes are in the buffer, and the socket is empty.
    Dry(usize),
    Closed,
}

impl Link {
    pub(crate) fn new(stream: BlockingStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            outbox: Vec::with_capacity(16 * 1024),
            written: 0,
            piece: Vec::with_capacity(512),
        })
    }

    /// The outbox waits for the socket to have room again.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Writes what the socket takes. A socket that is closed shows when it is read.
    pub(crate) fn flush(&mut self) {
        while self.written < self.outbox.len() {
            match self.stream.write(&self.outbox[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.outbox.clear();
        self.written = 0;
    }

    /// Puts into `buffer` the piece kept from last time and what the socket holds, by one read.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Filled {
        let kept = self.piece.len();
        buffer[..kept].copy_from_slice(&self.piece);
        self.piece.clear();
        loop {
            match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Filled::Closed,
                Ok(bytes) if kept + bytes == buffer.len() => return Filled::More(kept + bytes),
                // A short read has emptied the socket: what comes next is announced anew.
                Ok(bytes) => return Filled::Dry(kept + bytes),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Filled::Dry(kept),
                Err(_) => return Filled::Closed,
            }
        }
    }

    /// Keeps the beginning of a packet whose end has not come yet.
    pub(crate) fn keep(&mut self, piece: &[u8]) {
        self.piece.extend_from_slice(piece);
    }
}
