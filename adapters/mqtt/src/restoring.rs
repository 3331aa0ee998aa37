//! What an earlier run left, put back in place before anybody is let in.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rollcall_domain::identity::{ChannelId, Timestamp};
use rollcall_domain::sessions::{Delivery, KeptSession, Left, MessageNumber};
use rollcall_domain::things::Actions;
use rollcall_domain::topic::{SubscriptionFilter, TopicName};

use crate::admission::Hold;
use crate::agenda::Timer;
use crate::front::Shared;
use crate::message::Message;
use crate::packet::QoS;
use crate::principal::{Deed, Finding, Principal};
use crate::reason::Refusal;
use crate::route::{Terms, Via};
use crate::session::{ClientKey, Expiry, Session, Testament};
use crate::timers::{Tick, ticks};
use crate::window::{Flight, Queued, Window};
use crate::worker::Worker;

/// Questions that one CONNECT has open at a time.
const QUESTIONS: u16 = 32;

type Messages = HashMap<MessageNumber, Arc<Message>>;

/// Puts retained messages and sessions back: each session with the worker that is home to it.
pub(crate) fn restore(shared: &Shared, workers: &mut [Worker], left: Left) {
    let (now, at) = (Instant::now(), Timestamp::now());
    let sound = |number, kept| Message::from_kept(kept, number, now, at).map(Arc::new);
    let (mut count, mut lost) = (left.retained.len(), 0);
    for (topic, kept) in &left.retained {
        let (name, message) = (TopicName::parse(topic), sound(None, kept));
        match name.zip(message) {
            Some((name, message)) => lost += usize::from(!shared.retained.put_back(name, message)),
            None => lost += 1,
        }
    }
    if lost > 0 {
        tracing::warn!(lost, "retained messages do not fit in any more");
    }
    count -= lost;
    let messages: Messages = left
        .messages
        .iter()
        .filter_map(|(number, kept)| Some((*number, sound(Some(*number), kept)?)))
        .collect();
    let sessions = left.sessions.len();
    for kept in left.sessions {
        let thing = kept.session.thing.map(|it| it.to_string());
        let username = thing.as_deref().unwrap_or("");
        let home = shared.home(username, &kept.session.client_id);
        workers[home].restore(kept, &messages, at);
    }
    let messages = messages.len();
    tracing::info!(
        sessions,
        messages,
        retained = count,
        "sessions and messages are back"
    );
}

impl Worker {
    fn restore(&mut self, kept: KeptSession, messages: &Messages, at: Timestamp) {
        let thing = kept.session.thing;
        let client_id = kept.session.client_id;
        let key = Arc::new(ClientKey { thing, client_id });
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let principal = Principal::Absent(thing);
        let mut session = Session::new(Arc::clone(&key), generation, principal);
        let protocol = kept.session.protocol;
        session.protocol = Some(protocol);
        session.resumable = true;
        session.number = Some(kept.number);
        session.expiry = match kept.session.expiry {
            Duration::ZERO => Expiry::AtOnce,
            time => Expiry::After(time),
        };
        session.received = kept.received;
        let slot = self.sessions.insert(session);
        self.directory.insert(key, slot);
        self.shared.sessions.fetch_add(1, Ordering::Relaxed);
        self.shared.metrics.sessions.increment(1.0);

        for it in kept.subscriptions {
            let known = SubscriptionFilter::parse(&it.filter);
            let Some((_, qos)) = known.zip(QoS::from_bits(it.options & 3)) else {
                continue;
            };
            let terms = Terms {
                protocol,
                qos,
                no_local: it.options & 4 != 0,
                retain_as_published: it.options & 8 != 0,
                identifier: it.identifier.and_then(NonZeroU32::new),
                number: Some(kept.number),
            };
            self.route_to(slot, &it.filter, terms);
            let session = &mut self.sessions[slot];
            if let Err(place) = session.subscription(&it.filter) {
                session.subscriptions.insert(place, (it.filter, terms));
            }
        }
        self.sessions[slot].window = self.window(kept.deliveries, messages);
        self.count_queued(slot);
        self.tell_room(slot);

        let due = |when: Timestamp| -> Tick {
            match Duration::from_nanos(when.0.saturating_sub(at.0)) {
                Duration::ZERO => 0,
                left => ticks(left),
            }
        };
        if let Some((will, when)) = kept.will {
            let now = self.now;
            if let Some(message) = Message::from_kept(&will.message, None, now, at) {
                let number = 0;
                self.sessions[slot].testament = Some(Testament { message, number });
                let timer = Timer::Testament {
                    slot,
                    generation,
                    number,
                };
                self.timers.set(due(when), timer);
            }
        }
        let timer = Timer::SessionExpiry {
            slot,
            generation,
            departures: 0,
        };
        self.timers.set(due(kept.ends), timer);
    }

    fn window(&self, deliveries: Vec<Delivery>, messages: &Messages) -> Window {
        let (mut sent, mut queue) = (Vec::new(), Vec::new());
        let mut released: Vec<_> = deliveries
            .iter()
            .filter_map(|it| Some((it.released?, it.place?)))
            .collect();
        released.sort_unstable();
        for it in deliveries {
            let message = messages.get(&it.message).cloned();
            let (Some(message), Some(qos)) = (message, QoS::from_bits(it.qos)) else {
                continue;
            };
            let group = it
                .group
                .and_then(|filter| self.shared.router.group(&filter));
            let special = group.is_some() || !it.properties.is_empty();
            let via = special.then(|| {
                Arc::new(Via {
                    identifiers: it.properties,
                    group,
                    own: None,
                })
            });
            match it.place {
                None => queue.push(Queued {
                    message,
                    qos,
                    retain: it.retain,
                    via,
                }),
                Some(place) => {
                    let flight = Flight {
                        qos,
                        retain: it.retain,
                        released: it.released.is_some(),
                        sent: false,
                        message: it.released.is_none().then_some(message),
                        number: Some(it.message),
                        via,
                    };
                    sent.push((place, flight));
                }
            }
        }
        let released = released.into_iter().map(|(_, place)| place);
        Window::restore(sent, released, queue)
    }

    /// Finds out what the owner of a session that an earlier run left may still read: what was revoked
    /// meanwhile is not known here. Returns the channels that it may not.
    pub(crate) fn review(
        &mut self,
        token: usize,
        key: &ClientKey,
        principal: &Principal,
    ) -> Result<Vec<ChannelId>, Hold> {
        let Some(&slot) = self.directory.get(key) else {
            return Ok(Vec::new());
        };
        let session = &self.sessions[slot];
        if !matches!(
            (&session.principal, principal),
            (Principal::Absent(_), Principal::Thing { .. })
        ) {
            return Ok(Vec::new());
        }
        let mut seen = HashSet::new();
        let mut topics: Vec<String> = Vec::new();
        for (filter, _) in &session.subscriptions {
            let filter = SubscriptionFilter::parse(filter).expect("invariant: parsed before");
            if filter.topics().channel().is_none_or(|it| seen.insert(it)) {
                topics.push(filter.topics().as_str().to_owned());
            }
        }
        for message in session.window.messages() {
            let topic = message.publish().topic;
            let channel = TopicName::parse(topic).and_then(TopicName::channel);
            if channel.is_some_and(|it| seen.insert(it)) {
                topics.push(topic.to_owned());
            }
        }
        let (mut lost, mut asked) = (Vec::new(), false);
        for topic in topics {
            let filter = SubscriptionFilter::parse(&topic).expect("invariant: parsed before");
            let channel = filter.topics().channel();
            match self.look_up(token, principal, Deed::Subscribe(filter.topics())) {
                Finding::Granted(_) => {}
                Finding::Denied => lost.extend(channel),
                Finding::Unavailable => return Err(Refusal::AccessUnavailable.into()),
                Finding::Unknown(_) if self.connections[token].waiting >= QUESTIONS => asked = true,
                Finding::Unknown(question) => {
                    if self.ask_for(token, question).is_err() {
                        return Err(Refusal::TooManyQuestions.into());
                    }
                    asked = true;
                }
            }
        }
        match asked {
            true => Err(Hold::Asked),
            false => Ok(lost),
        }
    }

    /// Takes from a session what its owner may not read any more.
    pub(crate) fn withdraw(&mut self, slot: usize, channels: Vec<ChannelId>) {
        let left = Actions {
            read: false,
            write: true,
        };
        for channel in channels {
            self.lose_channel(slot, channel, left);
        }
    }
}
