//! The last retained message of each topic.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Instant;

use rollcall_domain::topic::{TopicFilter, TopicName};

use crate::message::Message;

/// Bounded by count and bytes; a message that does not fit is refused, what is kept stays.
#[derive(Debug)]
pub(crate) struct Retained {
    max_messages: usize,
    max_bytes: usize,
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    messages: HashMap<Box<str>, Arc<Message>>,
    bytes: usize,
}

/// There is no room for one more retained message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Retained {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            max_messages,
            max_bytes,
            kept: RwLock::default(),
        }
    }

    /// Keeps `message` in place of the one before [MQTT5-3.3.1-5].
    pub(crate) fn set(&self, topic: TopicName<'_>, message: Arc<Message>) -> Result<(), Full> {
        let mut kept = self
            .kept
            .write()
            .expect("invariant: no panic under the lock");
        let before = kept
            .messages
            .get(topic.as_str())
            .map(|message| message.len());
        let messages = kept.messages.len() + usize::from(before.is_none());
        let bytes = kept.bytes - before.unwrap_or(0) + message.len();
        if messages > self.max_messages || bytes > self.max_bytes {
            return Err(Full);
        }
        kept.bytes = bytes;
        kept.messages.insert(topic.as_str().into(), message);
        Ok(())
    }

    /// Forgets the message of `topic`: an empty retained payload was published [MQTT5-3.3.1-6].
    pub(crate) fn clear(&self, topic: TopicName<'_>) {
        let mut kept = self
            .kept
            .write()
            .expect("invariant: no panic under the lock");
        if let Some(message) = kept.messages.remove(topic.as_str()) {
            kept.bytes -= message.len();
        }
    }

    /// All messages for `filter` that have not expired.
    pub(crate) fn matching(&self, filter: TopicFilter<'_>, now: Instant) -> Vec<Arc<Message>> {
        let kept = self
            .kept
            .read()
            .expect("invariant: no panic under the lock");
        let alive = |message: &&Arc<Message>| !message.is_expired(now);
        if !filter.as_str().contains(['+', '#']) {
            return kept
                .messages
                .get(filter.as_str())
                .filter(alive)
                .cloned()
                .into_iter()
                .collect();
        }
        let matches =
            |topic: &str| TopicName::parse(topic).is_some_and(|name| filter.matches(name));
        let all = kept.messages.iter().filter(|(topic, _)| matches(topic));
        all.map(|(_, message)| message)
            .filter(alive)
            .cloned()
            .collect()
    }
}
