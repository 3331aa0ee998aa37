//! Who gets what is published on a topic, and how.

use std::num::NonZeroU32;
use std::sync::Arc;

use rollcall_domain::presence::Protocol;
use rollcall_domain::sessions::SessionNumber;

use crate::codec;
use crate::groups::Group;
use crate::packet::QoS;

/// A session, wherever it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionRef {
    pub(crate) worker: u16,
    /// Place in the worker's table of sessions.
    pub(crate) slot: u32,
    /// Tells this session from an earlier one in the same place.
    pub(crate) generation: u32,
}

/// How a session wants the messages of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) protocol: Protocol,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// What messages are to say that come by it [MQTT5-3.8.2.1.2].
    pub(crate) identifier: Option<NonZeroU32>,
    /// What the session is kept as beyond this process, if its messages are.
    pub(crate) number: Option<SessionNumber>,
}

impl Terms {
    /// As in a SUBSCRIBE packet, without retain handling.
    pub(crate) fn options(&self) -> u8 {
        self.qos as u8 | u8::from(self.no_local) << 2 | u8::from(self.retain_as_published) << 3
    }
}

/// One receiver of a route.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) session: SessionRef,
    /// With `no_local`, what the session itself publishes comes only by [`Via::own`].
    pub(crate) terms: Terms,
    pub(crate) via: Option<Arc<Via>>,
}

/// What is special about the subscriptions that a message comes by; most have nothing.
#[derive(Debug)]
pub(crate) struct Via {
    /// The properties that name the subscriptions, as they are sent [MQTT5-3.3.4-3].
    pub(crate) identifiers: Box<[u8]>,
    /// Who else could have had it.
    pub(crate) group: Option<Arc<Group>>,
    /// How the session gets what it publishes itself, if one of several subscriptions asks not to.
    pub(crate) own: Option<Receiver>,
}

/// All receivers of a topic, by worker.
#[derive(Debug, Default)]
pub(crate) struct Route {
    /// Where the version of the topic is kept, and what it was.
    pub(crate) place: usize,
    pub(crate) version: u64,
    /// Indexed by worker.
    pub(crate) receivers: Vec<Vec<Receiver>>,
    /// Each of which chooses one more.
    pub(crate) groups: Vec<Arc<Group>>,
    /// Whether any of `receivers` needs the message encoded for this version.
    pub(crate) mqtt311: bool,
    pub(crate) mqtt5: bool,
    /// Whether any of `receivers` keeps its messages beyond this process.
    pub(crate) keeps: bool,
}

impl Route {
    pub(crate) fn is_empty(&self) -> bool {
        !self.mqtt311 && !self.mqtt5 && self.groups.is_empty()
    }

    pub(crate) fn add(&mut self, receiver: Receiver) {
        match receiver.terms.protocol {
            Protocol::Mqtt31 | Protocol::Mqtt311 => self.mqtt311 = true,
            Protocol::Mqtt5 => self.mqtt5 = true,
        }
        self.keeps |= receiver.terms.number.is_some();
        self.receivers[usize::from(receiver.session.worker)].push(receiver);
    }
}

impl Receiver {
    pub(crate) fn identifiers(&self) -> &[u8] {
        self.via.as_ref().map_or(&[], |via| &via.identifiers)
    }

    /// Who else could have what it gets.
    pub(crate) fn group(&self) -> Option<&Arc<Group>> {
        self.via.as_ref()?.group.as_ref()
    }

    /// How a message from this session is received, if it is.
    #[inline]
    pub(crate) fn toward(&self, from: Option<SessionRef>) -> Option<&Self> {
        if self.terms.no_local && from == Some(self.session) {
            return self.via.as_ref()?.own.as_ref();
        }
        Some(self)
    }

    /// From all subscriptions of one session that match.
    pub(crate) fn of(same: &[(SessionRef, Terms)]) -> Self {
        let (session, mut terms) = same[0];
        let all = || same.iter().map(|(_, terms)| terms);
        for other in all() {
            terms.qos = terms.qos.max(other.qos);
            terms.no_local |= other.no_local;
            terms.retain_as_published |= other.retain_as_published;
        }
        let identifiers = identifiers(all());
        let own = if terms.no_local {
            let local: Vec<_> = same
                .iter()
                .copied()
                .filter(|(_, it)| !it.no_local)
                .collect();
            (!local.is_empty()).then(|| Self::of(&local))
        } else {
            None
        };
        let special = !identifiers.is_empty() || own.is_some();
        let via = special.then(|| {
            Arc::new(Via {
                identifiers,
                group: None,
                own,
            })
        });
        Self {
            session,
            terms,
            via,
        }
    }
}

impl Via {
    /// Of a subscription by itself.
    pub(crate) fn of(terms: &Terms) -> Option<Arc<Self>> {
        let identifiers = identifiers([terms]);
        let special = !identifiers.is_empty();
        special.then(|| {
            Arc::new(Self {
                identifiers,
                group: None,
                own: None,
            })
        })
    }
}

/// As they are sent, all of them, also if some are the same [MQTT5-3.3.4-4].
pub(crate) fn identifiers<'a>(subscriptions: impl IntoIterator<Item = &'a Terms>) -> Box<[u8]> {
    let mut properties = Vec::new();
    for terms in subscriptions {
        if let (Protocol::Mqtt5, Some(identifier)) = (terms.protocol, terms.identifier) {
            codec::subscription_identifier(&mut properties, identifier.get());
        }
    }
    properties.into()
}
