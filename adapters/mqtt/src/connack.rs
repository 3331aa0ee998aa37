//! What a CONNACK says: what is offered to who is let in, why to who is not.

use std::sync::Arc;

use rollcall_domain::identity::ThingId;
use rollcall_domain::presence::Protocol;
use rollcall_domain::topic::TopicName;
use serde::Deserialize;

use crate::codec::{self, ConnackProperties};
use crate::connection::Stage;
use crate::front::Shared;
use crate::packet::{Connect, QoS};
use crate::reason::{self, Refusal};
use crate::session::Expiry;
use crate::worker::{Flow, Worker};

/// No CONNACK that lets in is larger, as long as it leaves out what it may.
const LONGEST: u32 = 96;
/// As long as every id that is assigned.
const ASSIGNED_ID: &str = "auto-00000000-0000-0000-0000-000000000000";

/// A beginning of topics for answers, in which `{thing}` and `{client}` stand for who asks.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct ResponseInformation(String);

impl TryFrom<String> for ResponseInformation {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let found = Self(text);
        let sound = found.0.is_empty() || found.of(None, "").is_some() && found.0.len() <= 1024;
        sound.then_some(found).ok_or(
            "expected the beginning of a topic, at most 1024 bytes, such as \"replies/{client}\"",
        )
    }
}

impl ResponseInformation {
    /// What this client is told; `None` if it would be no topic.
    pub(crate) fn of(&self, thing: Option<ThingId>, client_id: &str) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let thing = thing.map(|thing| thing.to_string()).unwrap_or_default();
        let text = self
            .0
            .replace("{thing}", &thing)
            .replace("{client}", client_id);
        let topic = format!("{text}x");
        TopicName::parse(&topic).map(|_| text)
    }
}

/// A server reference (4.11); empty for none.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct ServerReference(Option<Arc<str>>);

impl TryFrom<String> for ServerReference {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.len() > 1024 || text.contains(char::is_control) {
            return Err("expected at most 1024 bytes without control characters");
        }
        Ok(Self((!text.is_empty()).then(|| text.into())))
    }
}

impl ServerReference {
    pub(crate) const fn get(&self) -> Option<&Arc<str>> {
        self.0.as_ref()
    }
}

impl Shared {
    /// How long the session of this client is kept without a connection.
    pub(crate) fn session_expiry(&self, connect: &Connect<'_>) -> Expiry {
        match connect.protocol {
            // 3.1.1 knows only sessions that end with the connection, and those that stay.
            Protocol::Mqtt31 | Protocol::Mqtt311 if connect.clean_start => Expiry::AtOnce,
            Protocol::Mqtt31 | Protocol::Mqtt311 => self.expiry(u32::MAX),
            Protocol::Mqtt5 => self.expiry(connect.properties.session_expiry),
        }
    }

    /// The keep-alive that counts, in seconds; 0 is none. 3.1.1 cannot be told of another than it asks for.
    pub(crate) fn keep_alive(&self, connect: &Connect<'_>) -> u16 {
        let most = self.config.max_keep_alive.as_secs() as u16;
        let asked = connect.keep_alive;
        let is_replaced = most > 0 && (asked == 0 || asked > most);
        if is_replaced && connect.protocol == Protocol::Mqtt5 {
            most
        } else {
            asked
        }
    }
}

impl Worker {
    /// Tells a client that it is in.
    pub(crate) fn greet_back(
        &mut self,
        slot: usize,
        token: usize,
        connect: &Connect<'_>,
        present: bool,
    ) {
        let key = Arc::clone(&self.sessions[slot].key);
        let assigned = connect.client_id.is_empty().then_some(&*key.client_id);
        let wanted = connect.properties.request_response_information;
        let information = &self.shared.config.response_information;
        let information = wanted.then(|| information.of(key.thing, &key.client_id));
        let information = information.flatten();
        let offer = self.offer(token, connect, assigned);
        self.reply_within(token, |out, all| {
            let properties = ConnackProperties {
                response_information: information.as_deref().filter(|_| all),
                ..offer
            };
            codec::connack(out, connect.protocol, present, reason::SUCCESS, &properties);
        });
    }

    /// What a client must be told. What is not told is as MQTT has it: offered.
    fn offer<'a>(
        &self,
        token: usize,
        connect: &Connect<'_>,
        assigned_client_id: Option<&'a str>,
    ) -> ConnackProperties<'a> {
        let (shared, config) = (&self.shared, &self.shared.config);
        let expiry = match shared.session_expiry(connect) {
            Expiry::AtOnce => 0,
            Expiry::After(time) => time.as_secs() as u32,
        };
        let keep_alive = shared.keep_alive(connect);
        ConnackProperties {
            session_expiry: (expiry != connect.properties.session_expiry).then_some(expiry),
            receive_maximum: Some(config.max_inflight),
            maximum_qos: (config.max_qos < QoS::ExactlyOnce).then_some(config.max_qos as u8),
            retain_available: (!config.retain_available).then_some(false),
            maximum_packet_size: Some(self.limit(&self.connections[token])),
            assigned_client_id,
            topic_alias_maximum: Some(config.max_topic_alias),
            // [MQTT5-3.2.2-21]
            server_keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
            ..ConnackProperties::default()
        }
    }

    /// Whether the client takes a packet as large as the CONNACK that would let it in [MQTT5-3.1.2-24].
    pub(crate) fn has_room_for_connack(&self, token: usize, connect: &Connect<'_>) -> bool {
        let most = self.connections[token].max_packet;
        if most >= LONGEST {
            return true;
        }
        let assigned = connect.client_id.is_empty().then_some(ASSIGNED_ID);
        let properties = self.offer(token, connect, assigned);
        let mut packet = Vec::new();
        codec::connack(
            &mut packet,
            connect.protocol,
            false,
            reason::SUCCESS,
            &properties,
        );
        packet.len() <= most as usize
    }

    /// Answers a CONNECT with a refusal; nothing of it is kept.
    pub(crate) fn refuse(&mut self, token: usize, protocol: Protocol, refusal: Refusal) -> Flow {
        let metrics = &self.shared.metrics;
        metrics.refused[refusal as usize].increment(1);
        let (mqtt311, mqtt5) = refusal.codes();
        let elsewhere = self.shared.server_reference();
        let elsewhere = elsewhere
            .filter(|_| refusal.may_be_met_elsewhere())
            .cloned();
        let code = match protocol {
            Protocol::Mqtt31 | Protocol::Mqtt311 => mqtt311,
            Protocol::Mqtt5 if elsewhere.is_some() => reason::USE_ANOTHER_SERVER,
            Protocol::Mqtt5 => mqtt5,
        };
        let why = Some(refusal.as_str());
        self.refuse_with(token, protocol, code, why, elsewhere.as_deref());
        Flow::Over
    }

    pub(crate) fn refuse_with(
        &mut self,
        token: usize,
        protocol: Protocol,
        code: u8,
        why: Option<&str>,
        elsewhere: Option<&str>,
    ) {
        let connection = &mut self.connections[token];
        connection.stage = Stage::Closing { linger: true };
        let why = why.filter(|_| connection.wants_reasons);
        // What does not fit is left out [MQTT5-3.2.2-19].
        self.reply_within(token, |out, all| {
            let properties = ConnackProperties {
                reason_string: why.filter(|_| all),
                server_reference: elsewhere.filter(|_| all),
                ..ConnackProperties::default()
            };
            codec::connack(out, protocol, false, code, &properties);
        });
        self.linger(token);
    }
}
