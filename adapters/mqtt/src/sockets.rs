//! Sockets of a worker: accepted, read, handed to the worker they belong to.

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::Token;
use rollcall_domain::presence::{Farewell, Peer};

use crate::agenda::Timer;
use crate::codec;
use crate::connection::Connection;
use crate::inbox::{Guest, Mail};
use crate::timers::ticks;
use crate::transport::{Fault, Socket, Transport};
use crate::worker::Worker;

/// What one read takes at most; each worker has one such buffer.
pub(crate) const READ_BYTES: usize = 128 * 1024;
/// Reads of one socket, and accepts of one door, before others get their turn.
const READS: usize = 2;
const ACCEPTS: usize = 64;
/// How long a turn goes on reading long packets.
const LONG_READS: Duration = Duration::from_millis(10);
/// Steps of handshakes in one turn: some take a millisecond, and those who are connected must not wait for
/// crowds to come in.
const HANDSHAKES: u32 = 8;
/// How long to leave a door alone that cannot accept (no more files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Worker {
    pub(crate) fn accept(&mut self) {
        let mut accepting = std::mem::take(&mut self.accepting);
        accepting.sort_unstable();
        accepting.dedup();
        for door in accepting {
            for n in 0.. {
                if n == ACCEPTS {
                    self.accepting.push(door);
                    break;
                }
                match self.doors[door].accept() {
                    Ok((socket, peer)) => {
                        self.greet(socket, peer, self.doors[door].listener);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        self.shared.metrics.accept_failures.increment(1);
                        tracing::warn!(%error, "cannot accept a connection");
                        let tick = self.tick.saturating_add(ticks(ACCEPT_PAUSE));
                        self.timers.set(tick, Timer::Accept { door });
                        break;
                    }
                }
            }
        }
    }

    fn greet(&mut self, socket: Socket, peer: Peer, listener: usize) {
        let shared = Arc::clone(&self.shared);
        let here = &shared.listeners[listener];
        here.accepted.increment(1);
        let all = shared.connections.fetch_add(1, Ordering::Relaxed);
        let of_listener = here.connections.fetch_add(1, Ordering::Relaxed);
        if all >= shared.config.max_connections
            || of_listener >= here.max_connections
            || self.stopping
        {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            here.connections.fetch_sub(1, Ordering::Relaxed);
            shared.metrics.turned_away.increment(1);
            return;
        }
        here.open.increment(1.0);
        let transport = match here.carry(socket) {
            Ok(transport) => transport,
            Err(error) => {
                tracing::warn!(%error, "cannot begin TLS");
                shared.connections.fetch_sub(1, Ordering::Relaxed);
                here.connections.fetch_sub(1, Ordering::Relaxed);
                here.open.decrement(1.0);
                return;
            }
        };
        let token = self.add(transport, peer, listener);
        match &here.proxies {
            // For whom it is, the header says.
            Some(proxies) if proxies.trusts(peer) => {
                self.connections[token].proxy_header = Some(Vec::new());
            }
            Some(_) => return self.on_transport_fault(token, Fault::UntrustedProxy),
            None if self.take_seat(token) => {}
            None => return,
        }
        self.read(token);
        self.register(token);
    }

    pub(crate) fn welcome_guest(&mut self, guest: Guest) {
        let Guest {
            transport,
            peer,
            listener,
            seat,
            input,
        } = guest;
        let token = self.add(transport, peer, listener);
        let connection = &mut self.connections[token];
        connection.settled = true;
        connection.seat = seat;
        connection.input = input;
        self.resume(token);
        self.register(token);
    }

    fn add(&mut self, transport: Transport, peer: Peer, listener: usize) -> usize {
        self.generation = self.generation.wrapping_add(1);
        let connection = Connection::new(transport, peer, listener, self.generation, self.tick);
        let token = self.connections.insert(connection);
        self.set_timer(
            token,
            ticks(self.shared.listeners[listener].connect_timeout),
        );
        token
    }

    /// Has the socket watched, if the connection is still here. Edge-triggered: what is there already
    /// counts as news.
    fn register(&mut self, token: usize) {
        let Some(connection) = self.connections.get_mut(token) else {
            return;
        };
        if connection.registered {
            return;
        }
        connection.registered = true;
        let registry = self.poll.registry();
        let room = connection.awaits_room;
        let watched = connection.transport.register(registry, Token(token), room);
        if let Err(error) = watched {
            tracing::warn!(%error, "cannot watch a socket");
            self.end(token, Farewell::ConnectionLost);
        }
    }

    /// The socket took no more: has it watched until it does. Most never have so much to say, so for them that
    /// would be an event for nothing.
    pub(crate) fn await_room(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        if std::mem::replace(&mut connection.awaits_room, true) || !connection.registered {
            return;
        }
        let registry = self.poll.registry();
        if let Err(error) = connection.transport.await_room(registry, Token(token)) {
            tracing::warn!(%error, "cannot watch a socket");
            self.end(token, Farewell::ConnectionLost);
        }
    }

    /// Sends a connection to the worker that is home to its session.
    pub(crate) fn move_to(&mut self, token: usize, home: usize, input: &[u8]) {
        let mut connection = self.connections.remove(token);
        if connection.registered
            && let Err(error) = connection.transport.deregister(self.poll.registry())
        {
            tracing::warn!(%error, "cannot hand over a socket");
        }
        let Connection {
            transport,
            peer,
            listener,
            seat,
            ..
        } = connection;
        self.shared.inboxes[home].post(Mail::Guest(Box::new(Guest {
            transport,
            peer,
            listener,
            seat,
            input: input.to_vec(),
        })));
    }

    /// Looks at what a client has sent before it is taken over: it may have said goodbye, and come back so
    /// soon that nobody has read it yet.
    pub(crate) fn hear_out(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        connection.readable = true;
        self.read(token);
    }

    /// Reads what sockets have. A long packet can be much work once it is whole, so the others go first, and some
    /// of the long ones wait for the next turn.
    pub(crate) fn read_again(&mut self) {
        if (self.again.is_empty() && self.long.is_empty()) || self.is_crowded() {
            return;
        }
        for token in std::mem::take(&mut self.again) {
            let connection = self.connections.get(token);
            match connection.is_some_and(|it| it.input.len() > READ_BYTES / 2) {
                true => self.long.push(token),
                false => self.read(token),
            }
        }
        for (n, token) in std::mem::take(&mut self.long).into_iter().enumerate() {
            match n > 0 && self.now.elapsed() > LONG_READS {
                true => self.long.push(token),
                false => self.read(token),
            }
        }
    }

    pub(crate) fn read(&mut self, token: usize) {
        let mut buffer = std::mem::take(&mut self.read);
        if buffer.is_empty() {
            // Another connection is being read, and this one is looked at on its behalf.
            buffer.resize(READ_BYTES, 0);
        }
        for _ in 0..READS {
            let Some(connection) = self.connections.get_mut(token) else {
                break;
            };
            if !connection.readable || !connection.listens() {
                break;
            }
            if connection.transport.is_handshaking() {
                if self.handshakes == HANDSHAKES {
                    break;
                }
                self.handshakes += 1;
            }
            if connection.proxy_header.is_some() {
                self.read_proxy_header(token);
                continue;
            }
            let held = connection.input.len();
            if held > READ_BYTES / 2 {
                self.read_long(token, &mut buffer);
                continue;
            }
            buffer[..held].copy_from_slice(&connection.input);
            match connection.transport.read(&mut buffer[held..]) {
                Ok(0) => {
                    self.end(token, Farewell::ConnectionLost);
                    break;
                }
                Ok(n) => {
                    connection.heard = self.tick;
                    // A short read has emptied the socket, unless the end of it is still to be read.
                    connection.readable = held + n == READ_BYTES
                        || connection.hangup
                        || connection.transport.is_layered();
                    connection.input = Vec::new();
                    let taken = self.process(token, &buffer[..held + n]);
                    if let Some(connection) = self.connections.get_mut(token) {
                        connection.input = buffer[taken..held + n].to_vec();
                    }
                }
                Err(error) => self.on_read_error(token, &error),
            }
        }
        self.read = buffer;
        if let Some(connection) = self.connections.get(token)
            && connection.readable
            && connection.listens()
        {
            self.again.push(token);
        }
    }

    /// Reads more of a packet that is longer than the read buffer: memory grows as bytes really come.
    fn read_long(&mut self, token: usize, buffer: &mut [u8]) {
        let connection = &mut self.connections[token];
        match connection.transport.read(buffer) {
            Ok(0) => self.end(token, Farewell::ConnectionLost),
            Ok(n) => {
                connection.heard = self.tick;
                connection.readable =
                    n == buffer.len() || connection.hangup || connection.transport.is_layered();
                connection.input.extend_from_slice(&buffer[..n]);
                let complete = match codec::frame_len(&connection.input) {
                    Ok(Some(len)) => connection.input.len() >= len,
                    Ok(None) => false,
                    Err(_) => true,
                };
                if complete {
                    self.resume(token);
                }
            }
            Err(error) => self.on_read_error(token, &error),
        }
    }
}
