//! How workers hear of each other, of the journal and of the things service: a letter box each.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mio::{Registry, Token, Waker};
use rollcall_domain::access::Revoked;
use rollcall_domain::identity::SessionId;
use rollcall_domain::presence::{Arrivals, Kick, Kicked, Peer};
use tokio::sync::oneshot;

use crate::delivery::Parcel;
use crate::gate::Answer;
use crate::limits::addresses::Seat;
use crate::outbox::Ticket;
use crate::transport::Transport;

/// Other workers stop taking input while more than this waits here to be delivered, so the box is
/// bounded by it and by what one turn of each worker can add.
const CROWDED_BYTES: usize = 8 * 1024 * 1024;

pub(crate) enum Mail {
    /// A connection whose session lives here, with its CONNECT and whatever came after it.
    Guest(Box<Guest>),
    /// Messages for sessions that live here: packets in `bytes`, and where each is to go.
    Crossing {
        bytes: Arc<Vec<u8>>,
        parcels: Vec<Parcel>,
    },
    /// The things service answered.
    Answer(Answer),
    /// The fate of the oldest batch of arrivals that has none yet.
    Kept(Arrivals),
    /// What was handed to the store up to here is committed.
    Committed(Ticket),
    Revoked(Arc<[Revoked]>),
    /// This may have been revoked: find out.
    Doubted(Arc<[Revoked]>),
    /// End these sessions, and say how many there were.
    Kick(Arc<Kick>, oneshot::Sender<Kicked>),
    /// The clients of these sessions are on other instances now.
    TakenOver(Arc<HashSet<SessionId>>),
    /// Too much waits, most of it here.
    Shed,
    /// End all sessions, within `spread`, and return.
    Stop {
        spread: Duration,
    },
}

pub(crate) struct Guest {
    pub(crate) transport: Transport,
    pub(crate) peer: Peer,
    pub(crate) listener: usize,
    pub(crate) seat: Option<Seat>,
    pub(crate) input: Vec<u8>,
}

pub(crate) struct Inbox {
    mail: Mutex<Vec<Mail>>,
    crossing_bytes: AtomicUsize,
    waker: Waker,
}

impl Inbox {
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(Self {
            mail: Mutex::default(),
            crossing_bytes: AtomicUsize::new(0),
            waker: Waker::new(registry, token)?,
        })
    }

    pub(crate) fn post(&self, mail: Mail) {
        if let Mail::Crossing { bytes, .. } = &mail {
            self.crossing_bytes
                .fetch_add(bytes.len(), Ordering::Relaxed);
        }
        let first = {
            let mut waiting = self
                .mail
                .lock()
                .expect("invariant: no panic under the lock");
            waiting.push(mail);
            waiting.len() == 1
        };
        if first && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake a worker");
        }
    }

    /// Swaps what came for an empty `mail`.
    pub(crate) fn take(&self, mail: &mut Vec<Mail>) {
        std::mem::swap(
            mail,
            &mut *self
                .mail
                .lock()
                .expect("invariant: no panic under the lock"),
        );
        self.crossing_bytes.store(0, Ordering::Relaxed);
    }

    pub(crate) fn is_crowded(&self) -> bool {
        self.crossing_bytes.load(Ordering::Relaxed) > CROWDED_BYTES
    }
}
