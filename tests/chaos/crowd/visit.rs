//! What clients do.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time;

use super::{Crowd, End, Guest, Phase, peer};
use crate::client::Hello;
use crate::dice::Dice;
use crate::proxy::{reset, write};
use crate::world::Thing;

/// How long a client waits for an answer before it gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How often a client asks whether the server is still there.
pub(super) const PING: Duration = Duration::from_millis(1_500);
/// Of a client that says nothing, the server hears this long.
const SILENCE: u16 = 2;
const KEEP_ALIVE: u16 = 4;
/// How long a client that says nothing waits for its end.
const HUSH: Duration = Duration::from_secs(8);

/// How a client means to end its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Goodbye,
    Close,
    Reset,
    /// It says nothing any more.
    Silence,
}

impl Crowd {
    /// The life of a client: it comes, stays, goes, and comes again.
    pub(super) async fn come_and_go(self: Arc<Self>, client: usize, mut dice: Dice) {
        time::sleep(Duration::from_millis(dice.below(3_000))).await;
        while self.is(Phase::Play) {
            let attempt = self.visit(client, &mut dice);
            let (number, end) = attempt.await;
            self.note(number, |it, now| it.ended = Some((now, end)));
            let pause = match end {
                End::Broken | End::Refused(_) => 300 + dice.below(900),
                _ => dice.below(1_500),
            };
            time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Those who are not let in, whatever they do.
    pub(super) async fn disturb(self: Arc<Self>, mut dice: Dice) {
        while self.is(Phase::Play) {
            let slot = dice.below(self.doors.len() as u64) as usize;
            let guest = match dice.below(2) {
                0 => Guest::Impostor,
                _ => Guest::Scan,
            };
            let number = self.come(0, slot, guest);
            let header = format!(
                "PROXY TCP4 {} 10.0.0.1 {} 1883\r\n",
                peer(number).ip(),
                peer(number).port()
            );
            let mut hello = header.into_bytes();
            if guest == Guest::Impostor {
                let thing = Thing {
                    id: self.things[0].id.clone(),
                    key: uuid_of(&mut dice),
                };
                hello.extend(Hello::of(&thing, "impostor").bytes());
            }
            let end = async {
                let stream = TcpStream::connect(self.doors[slot]).await.ok()?;
                write(&stream, &hello).await.ok()?;
                if guest == Guest::Scan {
                    return Some(End::Closed);
                }
                self.note(number, |it, _| it.asked = true);
                let mut wire = Wire::of(stream);
                match time::timeout(PATIENCE, wire.next()).await {
                    Ok(Some((0x20, body))) => match body.get(1) {
                        Some(0) => {
                            self.note(number, |it, now| it.admitted = Some(now));
                            Some(End::Closed)
                        }
                        code => Some(End::Refused(code.copied().unwrap_or(0xFF))),
                    },
                    _ => None,
                }
            };
            let end = end.await.unwrap_or(End::Broken);
            self.note(number, |it, now| it.ended = Some((now, end)));
            time::sleep(Duration::from_millis(100 + dice.below(900))).await;
        }
    }

    /// One connection, to its end.
    async fn visit(&self, client: usize, dice: &mut Dice) -> (u64, End) {
        let slot = dice.below(self.doors.len() as u64) as usize;
        let way = match dice.below(20) {
            0..8 => Way::Goodbye,
            8..13 => Way::Close,
            13..18 => Way::Reset,
            _ => Way::Silence,
        };
        let stay = match dice.below(10) {
            0..6 => 100 + dice.below(5_000),
            6..9 => 2_000 + dice.below(20_000),
            _ => 600_000,
        };
        let number = self.come(client, slot, Guest::Honest);
        let end = self.stay(number, client, slot, way, Duration::from_millis(stay));
        (number, end.await)
    }

    async fn stay(&self, number: u64, client: usize, slot: usize, way: Way, stay: Duration) -> End {
        let keep_alive = if way == Way::Silence {
            SILENCE
        } else {
            KEEP_ALIVE
        };
        let five = client.is_multiple_of(2);
        let hello = Hello::of(&self.thing_of(client), &self.names[client].client_id);
        let hello = hello.version(five).keep_alive(keep_alive).bytes();
        let from = peer(number);
        let mut bytes =
            format!("PROXY TCP4 {} 10.0.0.1 {} 1883\r\n", from.ip(), from.port()).into_bytes();
        bytes.extend(hello);
        let Ok(Ok(stream)) = time::timeout(PATIENCE, TcpStream::connect(self.doors[slot])).await
        else {
            return End::Broken;
        };
        let _ = stream.set_nodelay(true);
        // From here on the server may have it.
        self.note(number, |it, _| it.asked = true);
        let mut asked = Some(time::Instant::now());
        if write(&stream, &bytes).await.is_err() {
            return End::Broken;
        }
        let mut wire = Wire::of(stream);
        let answer = time::timeout(PATIENCE, wire.next()).await;
        self.waited(number, &mut asked);
        match answer {
            Err(_) => return End::GaveUp,
            Ok(Some((0x20, body))) => match body.get(1) {
                Some(0) => self.note(number, |it, now| it.admitted = Some(now)),
                code => return End::Refused(code.copied().unwrap_or(0xFF)),
            },
            Ok(Some(_)) => return End::Refused(0xFF),
            Ok(None) => return wire.end(),
        }
        let leave = time::Instant::now() + stay;
        let mut pings = time::interval_at(time::Instant::now() + PING, PING);
        let mut silent = false;
        loop {
            tokio::select! {
                packet = wire.next() => match packet {
                    None => {
                        self.waited(number, &mut asked);
                        return wire.end();
                    }
                    Some((0xE0, body)) => wire.reason = body.first().copied().or(Some(0)),
                    Some(_) => self.waited(number, &mut asked),
                },
                _ = pings.tick(), if !silent => {
                    let since = *asked.get_or_insert_with(time::Instant::now);
                    if since.elapsed() > PATIENCE {
                        self.waited(number, &mut asked);
                        return End::GaveUp;
                    }
                    // In nobody's way: a socket that takes no more answers no more.
                    let _ = wire.stream.try_write(&[0xC0, 0]);
                }
                () = time::sleep_until(leave), if !silent && self.is(Phase::Play) => {
                    self.waited(number, &mut asked);
                    match way {
                    Way::Goodbye => {
                        let _ = wire.stream.try_write(&[0xE0, 0]);
                        return End::Goodbye;
                    }
                    Way::Close => return End::Closed,
                    Way::Reset => {
                        reset(wire.stream);
                        return End::Reset;
                    }
                    Way::Silence => {
                        silent = true;
                        self.note(number, |it, now| it.silent = Some(now));
                    }
                }},
                () = time::sleep(HUSH), if silent => return End::GaveUp,
                () = self.wait_for(Phase::Over) => {
                    let _ = wire.stream.try_write(&[0xE0, 0]);
                    return End::Goodbye;
                }
            }
        }
    }

    /// An answer has come, or will not.
    pub(super) fn waited(&self, number: u64, asked: &mut Option<time::Instant>) {
        if let Some(asked) = asked.take() {
            let waited = asked.elapsed().as_millis() as u64;
            self.note(number, |it, _| it.waited = it.waited.max(waited));
        }
    }
}

/// A key that is nobody's.
fn uuid_of(dice: &mut Dice) -> String {
    format!(
        "{:032x}",
        u128::from(dice.next()) << 64 | u128::from(dice.next())
    )
}

/// Packets from a socket.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    buffer: Vec<u8>,
    /// Why the server ends it, if it has said so.
    pub(super) reason: Option<u8>,
    broken: bool,
}

impl Wire {
    pub(super) fn of(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            reason: None,
            broken: false,
        }
    }

    /// The next packet, or nothing at the end. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(packet) = self.take() {
                return Some(packet);
            }
            if self.stream.readable().await.is_err() {
                self.broken = true;
                return None;
            }
            let mut bytes = [0; 512];
            match self.stream.try_read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.broken = true;
                    return None;
                }
            }
        }
    }

    /// A server says little to these clients: its packets are short.
    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let length = usize::from(*self.buffer.get(1)?);
        assert!(length < 0x80, "a short packet");
        if self.buffer.len() < 2 + length {
            return None;
        }
        let rest = self.buffer.split_off(2 + length);
        let packet = std::mem::replace(&mut self.buffer, rest);
        Some((packet[0], packet[2..].to_vec()))
    }

    pub(super) fn end(&self) -> End {
        match self.broken {
            true => End::Broken,
            false => End::Ended(self.reason),
        }
    }
}
