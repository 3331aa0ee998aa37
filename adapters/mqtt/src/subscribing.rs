//! SUBSCRIBE and UNSUBSCRIBE: every filter is decided on by itself, and all in one answer.

use std::num::NonZeroU32;

use rollcall_domain::presence::Protocol;
use rollcall_domain::topic::SubscriptionFilter;

use crate::codec;
use crate::packet::{RetainHandling, Subscribe, Subscription, Unsubscribe};
use crate::principal::{Deed, Finding};
use crate::reason;
use crate::replaying::Replay;
use crate::route::Terms;
use crate::worker::{Flow, Worker};

/// Questions that one SUBSCRIBE has open at a time.
const QUESTIONS: u16 = 32;

/// What is to become of a filter.
enum Decision {
    Granted,
    Refused(u8),
    /// The things service has been asked, or is to be asked later.
    Open,
}

impl Worker {
    pub(crate) fn subscribe(&mut self, token: usize, subscribe: &Subscribe<'_>) -> Flow {
        let slot = self.connections[token].session.expect("invariant: live");
        let protocol = self.connections[token].protocol.expect("invariant: live");
        let mut decisions = Vec::new();
        let mut open = false;
        let max_qos = self.shared.config.max_qos;
        for mut subscription in subscribe.filters() {
            // A server may grant less than is asked for [MQTT5-3.8.4-7].
            subscription.qos = subscription.qos.min(max_qos);
            // Nobody can use more filters in one packet than a session may have.
            let decision = if decisions.len() < self.shared.config.max_subscriptions {
                match self.decide_filter(token, slot, subscription.filter) {
                    Ok(decision) => decision,
                    Err(flow) => return flow,
                }
            } else {
                Decision::Refused(reason::QUOTA_EXCEEDED)
            };
            open |= matches!(decision, Decision::Open);
            decisions.push((subscription, decision));
        }
        if open {
            return Flow::Wait;
        }
        self.connections[token].answers = Vec::new();

        let mut codes = Vec::with_capacity(decisions.len());
        let identifier = subscribe.subscription_identifier.and_then(NonZeroU32::new);
        for (subscription, decision) in &decisions {
            let code = match decision {
                Decision::Granted => {
                    let terms = Terms {
                        protocol,
                        qos: subscription.qos,
                        no_local: subscription.no_local,
                        retain_as_published: subscription.retain_as_published,
                        identifier,
                        number: self.sessions[slot].keeps_as(),
                    };
                    match self.add_subscription(slot, subscription.filter, terms) {
                        Some(new) => {
                            self.replay_for(slot, subscription, new, &terms);
                            subscription.qos as u8
                        }
                        None => reason::QUOTA_EXCEEDED,
                    }
                }
                Decision::Refused(code) => *code,
                Decision::Open => unreachable!("invariant: nothing is open"),
            };
            // 3.1.1 has one code for every failure [MQTT-3.9.3-2].
            let failed = code >= reason::UNSPECIFIED;
            if failed {
                self.shared.metrics.denied_subscriptions.count(code);
            }
            codes.push(if failed && protocol != Protocol::Mqtt5 {
                reason::UNSPECIFIED
            } else {
                code
            });
        }
        let id = subscribe.packet_id;
        if self.sessions[slot].number.is_some() {
            self.promise(token);
        }
        let failure = codes.iter().find(|code| **code >= reason::UNSPECIFIED);
        let why = failure.and_then(|code| reason::explain(*code));
        let why = why.filter(|_| self.connections[token].wants_reasons);
        self.reply_within(token, |out, all| {
            codec::suback(out, protocol, id, &codes, why.filter(|_| all));
        });
        self.replay(slot);
        Flow::Next
    }

    fn decide_filter(&mut self, token: usize, slot: usize, filter: &str) -> Result<Decision, Flow> {
        if !self.shared.config.limits.admit_topic(filter) {
            return Ok(Decision::Refused(reason::TOPIC_FILTER_INVALID));
        }
        let Some(filter) = SubscriptionFilter::parse(filter) else {
            return Ok(Decision::Refused(reason::TOPIC_FILTER_INVALID));
        };
        let principal = &self.sessions[slot].principal;
        match self.look_up(token, principal, Deed::Subscribe(filter.topics())) {
            Finding::Granted(_) => Ok(Decision::Granted),
            Finding::Denied => Ok(Decision::Refused(reason::NOT_AUTHORIZED)),
            Finding::Unavailable => Err(self.retry_later(token)),
            Finding::Unknown(_) if self.connections[token].waiting >= QUESTIONS => {
                Ok(Decision::Open)
            }
            Finding::Unknown(question) => match self.ask_for(token, question) {
                Ok(()) => Ok(Decision::Open),
                Err(_) => Err(self.retry_later(token)),
            },
        }
    }

    /// Adds or replaces a subscription; returns whether it is new, `None` if there is no room for it.
    fn add_subscription(&mut self, slot: usize, filter: &str, terms: Terms) -> Option<bool> {
        let session = &mut self.sessions[slot];
        let place = session.subscription(filter);
        match place {
            Ok(known) => {
                session.subscriptions[known].1 = terms;
                self.forget_replay(slot, filter);
            }
            Err(_)
                if session.subscriptions.len() >= self.shared.config.max_subscriptions
                    || session.bytes_of_filters() + filter.len()
                        > self.shared.max_subscription_bytes
                    || self.shared.counts.memory.is_short() =>
            {
                return None;
            }
            Err(new) => session.subscriptions.insert(new, (filter.into(), terms)),
        }
        self.route_to(slot, filter, terms);
        self.note_subscribed(slot, filter, &terms);
        Some(place.is_err())
    }

    /// Has messages come by a subscription of a session.
    pub(crate) fn route_to(&mut self, slot: usize, filter: &str, terms: Terms) {
        let filter = SubscriptionFilter::parse(filter).expect("invariant: granted");
        let shared = filter.share().is_some();
        let availability = shared.then(|| self.availability(slot));
        let (router, me) = (&self.shared.router, self.session_ref(slot));
        router.subscribe(filter, me, terms, availability.as_ref());
    }

    /// Has no more messages come by a subscription that a session had. What waits and came by a group goes
    /// to other members.
    pub(crate) fn unroute(&mut self, slot: usize, filter: &str) {
        let me = self.session_ref(slot);
        let filter = SubscriptionFilter::parse(filter).expect("invariant: granted");
        self.shared.router.unsubscribe(filter, me);
        self.forget_replay(slot, filter.as_str());
        if filter.share().is_some() {
            self.share_queue(slot, Some(filter.as_str()));
        }
    }

    /// Has retained messages sent for a subscription; those in groups get none [MQTT5-4.8.2].
    fn replay_for(
        &mut self,
        slot: usize,
        subscription: &Subscription<'_>,
        new: bool,
        terms: &Terms,
    ) {
        let wanted = match subscription.retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendIfNew => new,
            RetainHandling::DoNotSend => false,
        };
        let filter = SubscriptionFilter::parse(subscription.filter).expect("invariant: granted");
        let available = self.shared.config.retain_available;
        if wanted && available && filter.share().is_none() {
            let replays = &mut self.sessions[slot].replays;
            replays.push_back(Replay::new(filter.topics(), terms));
        }
    }

    pub(crate) fn unsubscribe(&mut self, token: usize, unsubscribe: &Unsubscribe<'_>) -> Flow {
        let slot = self.connections[token].session.expect("invariant: live");
        let protocol = self.connections[token].protocol.expect("invariant: live");
        let mut codes = Vec::new();
        for filter in unsubscribe.filters() {
            let session = &mut self.sessions[slot];
            codes.push(match session.subscription(filter) {
                Ok(place) => {
                    session.subscriptions.remove(place);
                    self.unroute(slot, filter);
                    self.note_unsubscribed(slot, filter);
                    reason::SUCCESS
                }
                Err(_) => reason::NO_SUBSCRIPTION_EXISTED,
            });
        }
        let id = unsubscribe.packet_id;
        if self.sessions[slot].number.is_some() {
            self.promise(token);
        }
        self.reply(token, |out| codec::unsuback(out, protocol, id, &codes));
        Flow::Next
    }
}
