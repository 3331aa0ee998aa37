//! One socket and what is known of the client behind it.

use std::sync::Arc;

use rollcall_domain::presence::{self, Peer, Protocol};

use crate::aliases::Aliases;
use crate::gate::Answered;
use crate::limits::addresses::Seat;
use crate::limits::things::Member;
use crate::message::{self, Alias, Envelope, Message};
use crate::outbox::Outbox;
use crate::principal::Grant;
use crate::reason::Refusal;
use crate::route::Route;
use crate::timers::Tick;
use crate::transport::Transport;

/// Where a connection is on its way from CONNECT to its goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A CONNECT is expected, or waits to be decided on.
    Greeting,
    /// Admitted; the CONNACK waits for the arrival to be kept.
    Arriving,
    Live,
    /// Over. What is left to say is written, then the socket is closed: at once, or (`linger`) after the
    /// client has closed its side or some time has passed, so that it can read what was said.
    Closing {
        linger: bool,
    },
}

pub(crate) struct Connection {
    pub(crate) transport: Transport,
    pub(crate) peer: Peer,
    /// As much of a PROXY header as came, if there has to be one.
    pub(crate) proxy_header: Option<Vec<u8>>,
    /// Which of the listeners it came by.
    pub(crate) listener: usize,
    /// Tells this connection from an earlier one with the same token.
    pub(crate) generation: u32,
    pub(crate) stage: Stage,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) registered: bool,
    /// The socket has once taken less than there was.
    pub(crate) awaits_room: bool,
    /// This worker is home to the session, as far as is known.
    pub(crate) settled: bool,
    /// The socket may have more to read.
    pub(crate) readable: bool,
    /// The client has closed its side.
    pub(crate) hangup: bool,
    /// The packet at the front of `input` waits for this many answers of the things service.
    pub(crate) waiting: u16,
    pub(crate) answers: Vec<Answered>,
    /// A beginning of a packet, or packets that may not be looked at yet.
    pub(crate) input: Vec<u8>,
    pub(crate) outbox: Outbox,
    /// What of it was left by earlier turns and is counted among what waits.
    pub(crate) counted: usize,
    /// Something in the outbox waits for a commit.
    pub(crate) held: bool,
    /// When the timer of this connection that counts is due; others are of the past.
    pub(crate) timer: Tick,
    /// When something was last read.
    pub(crate) heard: Tick,
    /// How long it may be silent; 0 is for ever.
    pub(crate) patience: Tick,
    /// What the roll knows of it; nobody from an open listener is on the roll.
    pub(crate) presence: Option<Arc<presence::Session>>,
    /// Place in the table of sessions, from `Arriving` to the end.
    pub(crate) session: Option<usize>,
    pub(crate) will: Option<Box<Will>>,
    /// The largest packet the client takes.
    pub(crate) max_packet: u32,
    /// Whether the client asked for problem information: reason strings.
    pub(crate) wants_reasons: bool,
    /// Topics by alias, the first one at 0.
    pub(crate) aliases: Vec<Option<Arc<str>>>,
    /// What the client is told, if it takes aliases.
    pub(crate) outgoing_aliases: Option<Box<Aliases>>,
    /// Retained messages follow when the client has read what is there.
    pub(crate) replays: bool,
    /// They follow as soon as it is its turn.
    pub(crate) replaying: bool,
    /// Its session is a member of groups, which look at what it leaves unread.
    pub(crate) shares: bool,
    pub(crate) memo: Option<Box<Memo>>,
    /// Its place among the connections of its address, if those are counted.
    pub(crate) seat: Option<Seat>,
    /// Its place among the connections of its thing, and what that may publish, if that is limited.
    pub(crate) member: Option<Box<Member>>,
    /// An answer to the CONNECT that waits until the timer of the connection is due.
    pub(crate) sentence: Option<(Protocol, Refusal)>,
}

#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) message: Message,
    pub(crate) grant: Grant,
    /// Seconds.
    pub(crate) delay: u32,
}

/// What the last PUBLISH found out: the next one is most likely on the same topic.
#[derive(Debug)]
pub(crate) struct Memo {
    pub(crate) topic: Box<str>,
    pub(crate) standing: Standing,
    pub(crate) route: Arc<Route>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Standing {
    Granted(Grant),
    /// Denied; not worth another question before this tick.
    Denied(Tick),
}

impl Connection {
    pub(crate) fn new(
        transport: Transport,
        peer: Peer,
        listener: usize,
        generation: u32,
        now: Tick,
    ) -> Self {
        Self {
            transport,
            peer,
            proxy_header: None,
            listener,
            generation,
            stage: Stage::Greeting,
            protocol: None,
            registered: false,
            awaits_room: false,
            settled: false,
            readable: true,
            hangup: false,
            waiting: 0,
            answers: Vec::new(),
            input: Vec::new(),
            outbox: Outbox::default(),
            counted: 0,
            held: false,
            timer: 0,
            heard: now,
            patience: 0,
            presence: None,
            session: None,
            will: None,
            max_packet: u32::MAX,
            wants_reasons: true,
            aliases: Vec::new(),
            outgoing_aliases: None,
            replays: false,
            replaying: false,
            shares: false,
            memo: None,
            seat: None,
            member: None,
            sentence: None,
        }
    }

    /// How the topic of the next packet goes, which is `frame` in `envelope`.
    pub(crate) fn choose_alias(&mut self, frame: &[u8], envelope: Envelope<'_>) -> Option<Alias> {
        let aliases = self.outgoing_aliases.as_mut()?;
        let envelope = Envelope {
            alias: Some(Alias::New(1)),
            ..envelope
        };
        let may_grow = message::fits(frame, &envelope, self.max_packet);
        aliases.choose(message::topic(frame), may_grow)
    }

    /// Whether its packets may be looked at now.
    pub(crate) fn listens(&self) -> bool {
        self.waiting == 0 && self.stage != Stage::Arriving
    }
}
