//! Topic aliases toward one client [MQTT5-3.3.2.3.4]: topics that it often gets go by number.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::message::Alias;

/// What an alias takes in a packet: a topic must be longer.
const COST: usize = 3;
/// Longer topics go without: what is remembered is bounded.
const MAX_TOPIC: usize = 1024;

/// The topics that were sent lately. A topic gets an alias at once if one is free, else with its second message
/// if it finds one that has not been used since the others had their turn.
#[derive(Debug)]
pub(crate) struct Aliases {
    max: u16,
    places: FxHashMap<Arc<[u8]>, usize>,
    /// Alias `n` is at `n - 1`.
    topics: Vec<Known>,
    /// Who is looked at next when a new topic wants a place.
    hand: usize,
}

#[derive(Debug)]
struct Known {
    topic: Arc<[u8]>,
    /// Whether the client knows.
    told: bool,
    /// Sent since the hand came by.
    used: bool,
}

impl Aliases {
    /// `max` is at least 1.
    pub(crate) fn new(max: u16) -> Self {
        Self {
            max,
            places: FxHashMap::default(),
            topics: Vec::new(),
            hand: 0,
        }
    }

    /// How the topic of the next packet goes: `None` for in full. With `may_grow` the packet has room for
    /// an alias beside the topic.
    pub(crate) fn choose(&mut self, topic: &[u8], may_grow: bool) -> Option<Alias> {
        if topic.len() <= COST || topic.len() > MAX_TOPIC {
            return None;
        }
        let known = self.places.get(topic).copied();
        let place = known.or_else(|| self.meet(topic))?;
        let alias = place as u16 + 1;
        let known = &mut self.topics[place];
        known.used = true;
        if known.told {
            return Some(Alias::Known(alias));
        }
        known.told = may_grow;
        may_grow.then_some(Alias::New(alias))
    }

    /// A topic that is new gets a free place, or waits in that of another one.
    fn meet(&mut self, topic: &[u8]) -> Option<usize> {
        let topic: Arc<[u8]> = topic.into();
        let known = Known {
            topic: Arc::clone(&topic),
            told: false,
            used: false,
        };
        if self.topics.len() < usize::from(self.max) {
            self.places.insert(topic, self.topics.len());
            self.topics.push(known);
            return Some(self.topics.len() - 1);
        }
        let place = self.hand;
        self.hand = (place + 1) % self.topics.len();
        if std::mem::take(&mut self.topics[place].used) {
            return None;
        }
        let before = std::mem::replace(&mut self.topics[place], known);
        self.places.remove(&before.topic);
        self.places.insert(topic, place);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_topic_that_comes_again_goes_by_number() {
        let mut aliases = Aliases::new(2);
        let mut choose = |topic: &str| aliases.choose(topic.as_bytes(), true);
        assert_eq!(choose("lamp"), Some(Alias::New(1)));
        assert_eq!(choose("lamp"), Some(Alias::Known(1)));
        assert_eq!([choose("abc"), choose("abc")], [None, None], "too short");
        assert_eq!(
            [choose("door"), choose("door")],
            [Some(Alias::New(2)), Some(Alias::Known(2))]
        );
        // A passer-by does not push out who is in use; one that stays does.
        assert_eq!(
            [choose("roof"), choose("lamp")],
            [None, Some(Alias::Known(1))]
        );
        for _ in 0..4 {
            choose("roof");
        }
        assert_eq!(choose("roof"), Some(Alias::Known(2)));
    }

    #[test]
    fn an_alias_waits_for_a_packet_with_room() {
        let mut aliases = Aliases::new(2);
        for _ in 0..3 {
            assert_eq!(aliases.choose(b"lamp", false), None);
        }
        assert_eq!(aliases.choose(b"lamp", true), Some(Alias::New(1)));
        assert_eq!(aliases.choose(b"lamp", false), Some(Alias::Known(1)));
    }

    proptest! {
        #[test]
        fn a_client_always_knows_what_a_number_means(
            max in 1u16..5,
            packets in prop::collection::vec((0u8..8, any::<bool>()), 0..300),
        ) {
            let mut aliases = Aliases::new(max);
            let mut client: HashMap<u16, String> = HashMap::new();
            for (topic, may_grow) in packets {
                let topic = format!("topic {topic}");
                match aliases.choose(topic.as_bytes(), may_grow) {
                    None => {}
                    Some(Alias::New(alias)) => {
                        prop_assert!(may_grow && (1..=max).contains(&alias));
                        client.insert(alias, topic);
                    }
                    Some(Alias::Known(alias)) => {
                        prop_assert_eq!(client.get(&alias), Some(&topic));
                    }
                }
            }
        }
    }
}
