//! A session: what outlives a connection, and what is found again by the next one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rollcall_domain::identity::ThingId;
use rollcall_domain::presence::Protocol;
use rollcall_domain::sessions::SessionNumber;

use crate::groups::Availability;
use crate::message::Message;
use crate::packet::QoS;
use crate::principal::Principal;
use crate::replaying::Replay;
use crate::route::Terms;
use crate::window::Window;

/// Whose session: client ids belong to the thing that uses them, or to all who come by an open listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientKey {
    pub(crate) thing: Option<ThingId>,
    pub(crate) client_id: Box<str>,
}

/// How long a session outlives its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    AtOnce,
    After(Duration),
}

/// A will that waits for its delay to pass [MQTT5-3.1.3.2.2].
#[derive(Debug)]
pub(crate) struct Testament {
    pub(crate) message: Message,
    /// Tells a later will of the same session from this one.
    pub(crate) number: u32,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: Arc<ClientKey>,
    /// Tells this session from an earlier one in the same place.
    pub(crate) generation: u32,
    /// Who its last connection was.
    pub(crate) principal: Principal,
    /// What its last connection spoke.
    pub(crate) protocol: Option<Protocol>,
    /// The live connection.
    pub(crate) connection: Option<usize>,
    /// The connection that has been admitted and waits for its arrival to be kept.
    pub(crate) claim: Option<usize>,
    /// Whether there is state from an earlier connection to resume.
    pub(crate) resumable: bool,
    /// What it is kept as beyond this process.
    pub(crate) number: Option<SessionNumber>,
    pub(crate) expiry: Expiry,
    /// Grows with each end of a connection: a timer of an earlier one means nothing.
    pub(crate) departures: u32,
    /// By their filters. Few, as a rule: a list is smaller than a map.
    pub(crate) subscriptions: Vec<(Box<str>, Terms)>,
    pub(crate) window: Window,
    /// Subscriptions whose retained messages are not all sent yet.
    pub(crate) replays: VecDeque<Replay>,
    /// What of its queue is counted among what waits.
    pub(crate) counted: usize,
    /// Messages that `$SYS` knows to wait.
    pub(crate) counted_messages: usize,
    /// Identifiers of QoS 2 messages that came and are not released yet.
    pub(crate) received: Vec<u16>,
    pub(crate) testament: Option<Testament>,
    /// For those who choose members of its groups, once it has been in one.
    pub(crate) availability: Option<Arc<Availability>>,
    /// More was to be queued than may be: the session is about to be discarded.
    pub(crate) overflowed: bool,
}

impl Session {
    pub(crate) const fn new(key: Arc<ClientKey>, generation: u32, principal: Principal) -> Self {
        Self {
            key,
            generation,
            principal,
            protocol: None,
            connection: None,
            claim: None,
            resumable: false,
            number: None,
            expiry: Expiry::AtOnce,
            departures: 0,
            subscriptions: Vec::new(),
            window: Window::new(),
            replays: VecDeque::new(),
            counted: 0,
            counted_messages: 0,
            received: Vec::new(),
            testament: None,
            availability: None,
            overflowed: false,
        }
    }

    /// Whether messages in flight must be kept for a later connection.
    pub(crate) fn may_resume(&self) -> bool {
        self.expiry != Expiry::AtOnce
    }

    /// Whether a message of this QoS can be kept while no connection is there to take it.
    pub(crate) fn keeps(&self, qos: QoS) -> bool {
        qos != QoS::AtMostOnce && self.may_resume()
    }

    /// What a message may be compared with.
    pub(crate) fn bytes_of_filters(&self) -> usize {
        let filters = self.subscriptions.iter();
        filters.map(|(filter, _)| filter.len()).sum()
    }

    /// Where the subscription to `filter` is, or would be.
    pub(crate) fn subscription(&self, filter: &str) -> Result<usize, usize> {
        self.subscriptions
            .binary_search_by(|(known, _)| (**known).cmp(filter))
    }
}
