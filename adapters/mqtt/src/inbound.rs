//! What clients publish: may they, has it come before, who is to have it.

use std::sync::Arc;
use std::time::Duration;

use rollcall_domain::presence::Protocol;
use rollcall_domain::sessions::Change;
use rollcall_domain::topic::TopicName;

use crate::agenda::Timer;
use crate::codec::{self, OutgoingPublish};
use crate::connection::{Memo, Standing};
use crate::delivery::Origin;
use crate::message::Message;
use crate::packet::{AckKind, Publish, QoS};
use crate::principal::{Deed, Finding};
use crate::reason;
use crate::route::Route;
use crate::timers::ticks;
use crate::worker::{Flow, Worker};

/// How long a client that may not publish on a topic is told so without asking again.
const DENIAL_HOLDS: Duration = Duration::from_secs(1);
/// How long to leave the store alone that cannot write.
const STORE_PAUSE: Duration = Duration::from_secs(1);
const PURGE_INTERVAL: Duration = Duration::from_secs(1);

impl Worker {
    #[inline]
    pub(crate) fn publish(&mut self, token: usize, publish: Publish<'_>) -> Flow {
        if let Err(code) = self.check_publish(&publish) {
            return self.violation(token, code);
        }
        match publish.properties.topic_alias {
            None => self.publish_on(token, publish.topic, &publish),
            Some(alias) => self.publish_by_alias(token, alias, &publish),
        }
    }

    /// What of a PUBLISH the configuration forbids, and the CONNACK of MQTT 5 has ruled out.
    #[inline]
    fn check_publish(&self, publish: &Publish<'_>) -> Result<(), u8> {
        let config = &self.shared.config;
        if publish.qos > config.max_qos {
            // [MQTT5-3.2.2-11]
            return Err(reason::QOS_NOT_SUPPORTED);
        }
        if publish.retain && !config.retain_available {
            // [MQTT5-3.2.2-14]
            return Err(reason::RETAIN_NOT_SUPPORTED);
        }
        Ok(())
    }

    /// A payload that is not what it says it is gets the answer of its PUBLISH, if it has one.
    #[cold]
    fn refuse_payload(&mut self, token: usize, publish: &Publish<'_>) -> Flow {
        self.shared.metrics.payloads_refused.increment(1);
        let code = reason::PAYLOAD_FORMAT_INVALID;
        if publish.qos == QoS::AtMostOnce {
            return self.violation(token, code);
        }
        self.answer_publish(token, publish, code)
    }

    /// A topic alias stands for a topic, or is made to [MQTT5-3.3.2.3.4].
    fn publish_by_alias(&mut self, token: usize, alias: u16, publish: &Publish<'_>) -> Flow {
        if alias > self.shared.config.max_topic_alias {
            return self.violation(token, reason::TOPIC_ALIAS_INVALID);
        }
        let place = usize::from(alias) - 1;
        let aliases = &mut self.connections[token].aliases;
        if publish.topic.is_empty() {
            return match aliases.get(place) {
                Some(Some(topic)) => {
                    let topic = Arc::clone(topic);
                    self.publish_on(token, &topic, publish)
                }
                _ => self.violation(token, reason::PROTOCOL_ERROR),
            };
        }
        if !self.shared.config.limits.admit_topic(publish.topic) {
            return self.refuse_topic(token, publish);
        }
        let aliases = &mut self.connections[token].aliases;
        if aliases.len() <= place {
            aliases.resize(place + 1, None);
        }
        if aliases[place].as_deref() != Some(publish.topic) {
            aliases[place] = Some(publish.topic.into());
        }
        self.publish_on(token, publish.topic, publish)
    }

    fn publish_on(&mut self, token: usize, topic: &str, publish: &Publish<'_>) -> Flow {
        let slot = self.connections[token].session.expect("invariant: live");
        if let (QoS::ExactlyOnce, Some(id)) = (publish.qos, publish.packet_id)
            && self.sessions[slot].received.contains(&id)
        {
            // It came before [MQTT5-4.3.3-10]; the client has not heard so.
            self.promise(token);
            return self.answer_publish(token, publish, reason::SUCCESS);
        }
        if publish.qos != QoS::AtMostOnce && self.is_beyond_maximum(token, slot) {
            return self.violation(token, reason::RECEIVE_MAXIMUM_EXCEEDED);
        }
        if publish.properties.payload_format.is_some()
            && self.shared.config.check_payload_format
            && !publish.properties.holds_for(publish.payload)
        {
            return self.refuse_payload(token, publish);
        }
        if let Some(topic) = publish.properties.response_topic
            && !self.shared.config.limits.admit_topic(topic)
        {
            return self.refuse_topic(token, publish);
        }
        let standing = match self.standing(token, slot, topic, publish) {
            Err(flow) => return flow,
            Ok(standing) => standing,
        };
        if let Some(member) = &self.connections[token].member
            && let Err(wait) = member.publish(topic.len() + publish.payload.len(), self.now)
        {
            return self.slow_down(token, wait);
        }
        let Some(mut route) = standing else {
            return self.deny_publish(token, publish);
        };
        let protocol = self.connections[token].protocol.expect("invariant: live");
        let session = self.sessions[slot].keeps_as();
        let keeps = route.keeps || publish.retain || session.is_some();
        if keeps && publish.qos != QoS::AtMostOnce && self.notes.is_failing() {
            // Nothing that may not be there tomorrow is acknowledged.
            self.shared.metrics.publishes_unkept.increment(1);
            return match protocol {
                Protocol::Mqtt5 => self.answer_publish(token, publish, reason::QUOTA_EXCEEDED),
                Protocol::Mqtt31 | Protocol::Mqtt311 => self.wait(token, STORE_PAUSE),
            };
        }
        self.tally.received += 1;
        let mut promises = publish.retain;
        if publish.retain && !self.retain_published(topic, publish, protocol) {
            self.shared.metrics.retained_refused.increment(1);
            if protocol == Protocol::Mqtt5 && publish.qos != QoS::AtMostOnce {
                return self.answer_publish(token, publish, reason::QUOTA_EXCEEDED);
            }
        }
        if publish.retain && !self.shared.router.holds(&route) {
            // Who subscribed before the message was retained has not seen it.
            let name = TopicName::parse(topic).expect("invariant: the codec checks topic names");
            route = self.route(name);
        }
        let code = match route.is_empty() {
            false => reason::SUCCESS,
            true => reason::NO_MATCHING_SUBSCRIBERS,
        };
        if let (QoS::ExactlyOnce, Some(id)) = (publish.qos, publish.packet_id) {
            self.sessions[slot].received.push(id);
            if let Some(session) = session {
                self.notes.add(Change::Received(session, id));
                promises = true;
            }
        }
        // Who hears itself hears first that it was understood, if nothing has to be kept before that is true:
        // members of groups may have to.
        let at_once = !keeps && route.groups.is_empty();
        if at_once {
            self.answer_publish(token, publish, code);
        }
        if !route.is_empty() {
            let from = Some(self.session_ref(slot));
            let origin = Origin {
                qos: publish.qos,
                retain: publish.retain,
                from,
            };
            promises |= self.dispatch(&route, origin, |out, protocol| {
                codec::publish(out, protocol, &outgoing(topic, publish));
            });
        }
        if at_once {
            return Flow::Next;
        }
        if promises && publish.qos != QoS::AtMostOnce {
            self.promise(token);
        }
        self.answer_publish(token, publish, code)
    }

    /// Whether a client has as much unacknowledged as it may [MQTT5-3.3.4-7]: QoS 2 up to its release, QoS 1
    /// as long as the answer waits for a commit. Clients of 3.1.1 are told of no maximum.
    #[inline]
    fn is_beyond_maximum(&mut self, token: usize, slot: usize) -> bool {
        let connection = &mut self.connections[token];
        if connection.protocol != Some(Protocol::Mqtt5) {
            return false;
        }
        let held = connection.outbox.owes(self.notes.known());
        let open = held + self.sessions[slot].received.len();
        open >= usize::from(self.shared.config.max_inflight)
    }

    /// The route of `topic` if this client may publish on it, `None` if not; an error if it must wait, or has
    /// its answer.
    #[inline]
    fn standing(
        &mut self,
        token: usize,
        slot: usize,
        topic: &str,
        publish: &Publish<'_>,
    ) -> Result<Option<Arc<Route>>, Flow> {
        let connection = &self.connections[token];
        if let Some(memo) = connection.memo.as_deref()
            && *memo.topic == *topic
        {
            match memo.standing {
                Standing::Granted(grant)
                    if self.holds(&grant) && self.shared.router.holds(&memo.route) =>
                {
                    return Ok(Some(Arc::clone(&memo.route)));
                }
                Standing::Denied(until) if until > self.tick => return Ok(None),
                _ => {}
            }
        }
        self.decide(token, slot, topic, publish)
    }

    /// Finds out what [`Worker::standing`] tells, and remembers it.
    #[cold]
    fn decide(
        &mut self,
        token: usize,
        slot: usize,
        topic: &str,
        publish: &Publish<'_>,
    ) -> Result<Option<Arc<Route>>, Flow> {
        if !self.shared.config.limits.admit_topic(topic) {
            return Err(self.refuse_topic(token, publish));
        }
        let name = TopicName::parse(topic).expect("invariant: the codec checks topic names");
        let principal = &self.sessions[slot].principal;
        let standing = match self.look_up(token, principal, Deed::Publish(name)) {
            Finding::Granted(grant) => Standing::Granted(grant),
            Finding::Denied => Standing::Denied(self.tick + ticks(DENIAL_HOLDS)),
            Finding::Unavailable => return Err(self.retry_later(token)),
            Finding::Unknown(question) => {
                return Err(match self.ask_for(token, question) {
                    Ok(()) => Flow::Wait,
                    Err(_) => self.retry_later(token),
                });
            }
        };
        let route = match standing {
            Standing::Granted(_) => self.route(name),
            Standing::Denied(_) => Arc::default(),
        };
        let granted = matches!(standing, Standing::Granted(_)).then(|| Arc::clone(&route));
        let connection = &mut self.connections[token];
        connection.answers = Vec::new();
        connection.memo = Some(Box::new(Memo {
            topic: topic.into(),
            standing,
            route,
        }));
        Ok(granted)
    }

    /// 3.1.1 has no way to say no but to hang up, and a message that goes nowhere is no reason for that:
    /// it is acknowledged and counted [MQTT-3.3.5-2].
    fn deny_publish(&mut self, token: usize, publish: &Publish<'_>) -> Flow {
        self.tally.denied_publishes += 1;
        self.answer_publish(token, publish, reason::NOT_AUTHORIZED)
    }

    pub(crate) fn answer_publish(&mut self, token: usize, publish: &Publish<'_>, code: u8) -> Flow {
        let kind = match publish.qos {
            QoS::AtMostOnce => return Flow::Next,
            QoS::AtLeastOnce => AckKind::PubAck,
            QoS::ExactlyOnce => AckKind::PubRec,
        };
        let id = publish.packet_id.expect("invariant: QoS 1 and 2 have one");
        self.reply_ack(token, kind, id, code);
        let connection = &mut self.connections[token];
        if kind == AckKind::PubAck && connection.protocol == Some(Protocol::Mqtt5) {
            connection.outbox.owe(self.notes.known());
        }
        Flow::Next
    }

    /// Publishes a message that was kept: a will.
    pub(crate) fn publish_message(&mut self, message: Message) {
        let message = Arc::new(message.begin(self.now));
        let publish = message.publish();
        let topic = TopicName::parse(publish.topic).expect("invariant: checked when it was kept");
        if message.retain
            && !self.retain(topic, publish.payload.is_empty(), || Arc::clone(&message))
        {
            self.shared.metrics.retained_refused.increment(1);
        }
        let route = self.route(topic);
        let (retain, now) = (message.retain, self.now);
        let origin = Origin {
            qos: message.qos,
            retain,
            from: None,
        };
        self.dispatch(&route, origin, |out, protocol| {
            out.extend_from_slice(&message.frame(protocol, now));
        });
    }

    /// Keeps or clears the retained message of a topic. Returns whether there was room.
    pub(crate) fn retain(
        &mut self,
        topic: TopicName<'_>,
        empty: bool,
        message: impl FnOnce() -> Arc<Message>,
    ) -> bool {
        if self.notes.is_failing() {
            return false;
        }
        self.fence();
        if empty {
            self.shared.retained.clear(topic);
            return true;
        }
        !self.shared.counts.memory.is_short()
            && self.shared.retained.set(topic, message(), self.now).is_ok()
    }

    /// Forgets messages that have expired, now and every second from now on.
    pub(crate) fn purge(&mut self) {
        if self.id == 0 {
            self.purge_retained();
        }
        self.sweep_queues();
        let next = self.tick + ticks(PURGE_INTERVAL);
        self.timers.set(next, Timer::Purge);
    }

    fn purge_retained(&mut self) {
        let retained = &self.shared.retained;
        let purged = retained.purge(self.now) as u64;
        let metrics = &self.shared.metrics;
        metrics.retained_expired.increment(purged);
        let (messages, bytes) = retained.size();
        metrics.retained_messages.set(messages as f64);
        metrics.retained_bytes.set(bytes as f64);
    }

    fn retain_published(&mut self, topic: &str, publish: &Publish<'_>, protocol: Protocol) -> bool {
        let name = TopicName::parse(topic).expect("invariant: the codec checks topic names");
        let now = self.now;
        self.retain(name, publish.payload.is_empty(), || {
            let mut frame = Vec::new();
            codec::publish(&mut frame, protocol, &outgoing(topic, publish));
            Arc::new(Message::keep(&frame, protocol, publish.qos, true, now))
        })
    }
}

/// What a client published as the QoS 0 packet for its receivers.
fn outgoing<'a>(topic: &'a str, publish: &'a Publish<'a>) -> OutgoingPublish<'a> {
    OutgoingPublish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties: &publish.properties,
        subscription_identifiers: &[],
        payload: publish.payload,
    }
}
