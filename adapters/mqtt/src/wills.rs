//! What clients leave to be said when they are gone: checked when they come, and again when it is due.

use rollcall_domain::topic::TopicName;

use crate::admission::Hold;
use crate::codec::{self, OutgoingPublish};
use crate::connection::Will;
use crate::gate::Asker;
use crate::message::Message;
use crate::packet::{self, Connect, QoS};
use crate::principal::{Deed, Finding, Grant, Principal};
use crate::reason::Refusal;
use crate::worker::Worker;

impl Worker {
    /// The will of a CONNECT, if it has one, and may have it.
    pub(crate) fn admit_will(
        &mut self,
        token: usize,
        connect: &Connect<'_>,
        principal: &Principal,
    ) -> Result<Option<Box<Will>>, Hold> {
        let Some(will) = &connect.will else {
            return Ok(None);
        };
        self.check_will(will)?;
        let grant = self.grant_will(token, principal, will)?;
        let outgoing = OutgoingPublish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: will.topic,
            packet_id: None,
            properties: &will.properties,
            subscription_identifiers: &[],
            payload: will.payload,
        };
        let mut frame = Vec::new();
        codec::publish(&mut frame, connect.protocol, &outgoing);
        let protocol = connect.protocol;
        let message = Message::keep(&frame, protocol, will.qos, will.retain, self.now);
        let delay = will.delay;
        Ok(Some(Box::new(Will {
            message,
            grant,
            delay,
        })))
    }

    /// What of a will the standard or the configuration forbids; that its topic is one is the codec's business.
    fn check_will(&self, will: &packet::Will<'_>) -> Result<(), Refusal> {
        let (config, metrics) = (&self.shared.config, &self.shared.metrics);
        let mut topics = [Some(will.topic), will.properties.response_topic]
            .into_iter()
            .flatten();
        if !topics.all(|topic| config.limits.admit_topic(topic)) {
            metrics.topics_refused.increment(1);
            return Err(Refusal::WillTopicTooLong);
        }
        if will.qos > config.max_qos {
            // [MQTT5-3.2.2-12]
            return Err(Refusal::WillQos);
        }
        if will.retain && !config.retain_available {
            // [MQTT5-3.2.2-13]
            return Err(Refusal::WillRetain);
        }
        if config.check_payload_format && !will.properties.holds_for(will.payload) {
            return Err(Refusal::WillPayload);
        }
        Ok(())
    }

    fn grant_will(
        &mut self,
        token: usize,
        principal: &Principal,
        will: &packet::Will<'_>,
    ) -> Result<Grant, Hold> {
        let topic = TopicName::parse(will.topic).ok_or(Refusal::WillNotAuthorized)?;
        match self.look_up(token, principal, Deed::Publish(topic)) {
            Finding::Granted(grant) => Ok(grant),
            Finding::Denied => Err(Refusal::WillNotAuthorized.into()),
            Finding::Unavailable => Err(Refusal::AccessUnavailable.into()),
            Finding::Unknown(question) => Err(self.ask(token, question)),
        }
    }

    /// Publishes a will if that is still granted; a grant that is no longer remembered is asked for.
    pub(crate) fn publish_will(&mut self, slot: usize, will: Will) {
        let Will { message, grant, .. } = will;
        if self.holds(&grant) {
            return self.publish_message(message);
        }
        let topic = TopicName::parse(message.publish().topic);
        let deed = Deed::Publish(topic.expect("invariant: checked when it was kept"));
        match self.recall(&self.sessions[slot].principal, deed) {
            Finding::Granted(_) => return self.publish_message(message),
            Finding::Denied | Finding::Unavailable => {}
            Finding::Unknown(question) => {
                let asker = Asker::Will(message);
                if self.shared.gate.ask(question, asker, &self.inbox).is_ok() {
                    return;
                }
            }
        }
        self.shared.metrics.denied_wills.increment(1);
    }
}
