//! Messages at QoS 1: by each door a writer and a reader, whose session outlives its connections. What was acknowledged
//! arrives, unless the instance has lost its folder.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time;

use super::visit::{PATIENCE, PING, Wire};
use super::{Crowd, End, Guest, Phase, peer};
use crate::client::{Hello, Packet, message, packet, publish, subscribe};
use crate::proxy::write;

/// Between two letters.
const PAUSE: Duration = Duration::from_millis(100);
const KEEP_ALIVE: u16 = 4;

/// A letter: to which subscription of the reader, and its number.
pub(crate) type Letter = (u64, u64);

/// The letters of one door.
#[derive(Clone, Debug, Default)]
pub(crate) struct Post {
    /// Which subscription the reader has; 0 before the first.
    pub(crate) subscription: u64,
    /// Subscriptions that the server knew no more, and when that was found.
    pub(crate) forgotten: Vec<(u64, u64)>,
    pub(crate) acknowledged: BTreeSet<Letter>,
    pub(crate) received: BTreeSet<Letter>,
}

impl Post {
    /// Letters that were acknowledged, to subscriptions that hold, and have not arrived.
    pub(crate) fn missing(&self) -> Vec<Letter> {
        let forgotten: BTreeSet<u64> = self.forgotten.iter().map(|it| it.0).collect();
        let missing = self.acknowledged.difference(&self.received);
        let missing = missing.filter(|(subscription, _)| !forgotten.contains(subscription));
        missing.copied().collect()
    }
}

/// What a writer and a reader need of their connection.
struct Desk {
    wire: Wire,
    /// The server has the session.
    is_known: bool,
    asked: Option<time::Instant>,
}

impl Crowd {
    fn topic(&self, slot: usize) -> String {
        format!("channels/{}/messages/{slot}", self.channel)
    }

    /// Connects, as one of the last clients that there are.
    async fn sit_down(
        &self,
        number: u64,
        slot: usize,
        client: usize,
        lasting: bool,
    ) -> Result<Desk, End> {
        let hello = Hello::of(&self.thing_of(client), &self.names[client].client_id);
        let hello = hello.five().keep_alive(KEEP_ALIVE);
        let hello = if lasting { hello.lasting() } else { hello };
        let from = peer(number);
        let header = format!("PROXY TCP4 {} 10.0.0.1 {} 1883\r\n", from.ip(), from.port());
        let bytes = [header.as_bytes(), &hello.bytes()].concat();
        let stream = time::timeout(PATIENCE, TcpStream::connect(self.doors[slot])).await;
        let Ok(Ok(stream)) = stream else {
            return Err(End::Broken);
        };
        self.note(number, |it, _| it.asked = true);
        write(&stream, &bytes).await.map_err(|_| End::Broken)?;
        let mut wire = Wire::of(stream);
        match time::timeout(PATIENCE, wire.next()).await {
            Err(_) => Err(End::GaveUp),
            Ok(Some((0x20, body))) if body.get(1) == Some(&0) => {
                self.note(number, |it, now| it.admitted = Some(now));
                Ok(Desk {
                    wire,
                    is_known: body[0] == 1,
                    asked: None,
                })
            }
            Ok(Some((_, body))) => Err(End::Refused(body.get(1).copied().unwrap_or(0xFF))),
            Ok(None) => Err(wire.end()),
        }
    }

    /// The next packet; `Ok(None)` after a while without one.
    async fn listen(&self, number: u64, desk: &mut Desk) -> Result<Option<(u8, Vec<u8>)>, End> {
        match time::timeout(PING, desk.wire.next()).await {
            Ok(None) => {
                self.waited(number, &mut desk.asked);
                Err(desk.wire.end())
            }
            Ok(Some((0xE0, body))) => {
                desk.wire.reason = body.first().copied().or(Some(0));
                Ok(None)
            }
            Ok(Some(packet)) => {
                self.waited(number, &mut desk.asked);
                Ok(Some(packet))
            }
            Err(_) => {
                let since = *desk.asked.get_or_insert_with(time::Instant::now);
                if since.elapsed() > PATIENCE {
                    self.waited(number, &mut desk.asked);
                    return Err(End::GaveUp);
                }
                let _ = desk.wire.stream.try_write(&[0xC0, 0]);
                Ok(None)
            }
        }
    }

    fn post<T>(&self, slot: usize, what: impl FnOnce(&mut Post) -> T) -> T {
        what(&mut self.posts.lock().unwrap_or_else(|it| it.into_inner())[slot])
    }

    /// Comes again and again until all is over.
    pub(super) async fn read_letters(self: Arc<Self>, slot: usize, client: usize) {
        while !self.is(Phase::Over) {
            let number = self.come(client, slot, Guest::Honest);
            let end = tokio::select! {
                end = self.read(number, slot, client) => end,
                () = self.wait_for(Phase::Over) => End::Closed,
            };
            self.note(number, |it, now| it.ended = Some((now, end)));
            time::sleep(PAUSE).await;
        }
    }

    async fn read(&self, number: u64, slot: usize, client: usize) -> End {
        let mut desk = match self.sit_down(number, slot, client, true).await {
            Ok(desk) => desk,
            Err(end) => return end,
        };
        let had = self.post(slot, |post| post.subscription);
        let is_subscribed = had > 0 && desk.is_known;
        if had > 0 && !desk.is_known {
            let now = self.now();
            self.post(slot, |post| {
                if post.forgotten.last().is_none_or(|(known, _)| *known != had) {
                    post.forgotten.push((had, now));
                }
            });
        }
        if !is_subscribed {
            let ask = subscribe(true, 1, &[(&self.topic(slot), 1)]);
            if write(&desk.wire.stream, &ask).await.is_err() {
                return End::Broken;
            }
        }
        loop {
            match self.listen(number, &mut desk).await {
                Err(end) => return end,
                Ok(None) => {}
                Ok(Some((0x90, body))) if body.last() == Some(&1) => {
                    self.post(slot, |post| post.subscription += 1);
                }
                // Nobody could be asked whether it may read.
                Ok(Some((0x90, _))) => return End::Closed,
                Ok(Some((first, body))) if first >> 4 == 3 => {
                    let letter = message(&Packet { first, body }, true);
                    let text = String::from_utf8_lossy(&letter.payload).into_owned();
                    let read = text.split_once(' ').and_then(|(subscription, n)| {
                        Some((subscription.parse().ok()?, n.parse().ok()?))
                    });
                    // It is taken before it is acknowledged.
                    self.post(slot, |post| post.received.extend(read));
                    let receipt = packet(0x40, &letter.id.to_be_bytes());
                    if write(&desk.wire.stream, &receipt).await.is_err() {
                        return End::Broken;
                    }
                }
                Ok(Some(_)) => {}
            }
        }
    }

    /// Writes until all come to rest.
    pub(super) async fn write_letters(self: Arc<Self>, slot: usize, client: usize) {
        let mut next = 1;
        while self.is(Phase::Play) {
            let number = self.come(client, slot, Guest::Honest);
            let end = self.write(number, slot, client, &mut next).await;
            self.note(number, |it, now| it.ended = Some((now, end)));
            time::sleep(PAUSE).await;
        }
    }

    async fn write(&self, number: u64, slot: usize, client: usize, next: &mut u64) -> End {
        let mut desk = match self.sit_down(number, slot, client, false).await {
            Ok(desk) => desk,
            Err(end) => return end,
        };
        while self.is(Phase::Play) {
            let subscription = self.post(slot, |post| post.subscription);
            let letter = (subscription, *next);
            let text = format!("{subscription} {next}");
            let id = (*next % 60_000) as u16 + 1;
            let bytes = publish(true, &self.topic(slot), text.as_bytes(), 1, false, id, &[]);
            if write(&desk.wire.stream, &bytes).await.is_err() {
                return End::Broken;
            }
            let sent = time::Instant::now();
            loop {
                match self.listen(number, &mut desk).await {
                    Err(end) => return end,
                    Ok(Some((0x40, body))) if body[..2] == id.to_be_bytes() => {
                        if body.get(2).is_none_or(|code| *code < 0x80) {
                            // Before the first subscription it was a letter to nobody.
                            if subscription > 0 {
                                self.post(slot, |post| post.acknowledged.insert(letter));
                            }
                            *next += 1;
                        }
                        break;
                    }
                    Ok(_) if sent.elapsed() > PATIENCE => return End::Closed,
                    Ok(_) => {}
                }
            }
            time::sleep(PAUSE).await;
        }
        let _ = desk.wire.stream.try_write(&[0xE0, 0]);
        End::Goodbye
    }
}
