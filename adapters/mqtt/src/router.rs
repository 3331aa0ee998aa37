//! Which sessions a message is for: exact filters in a table, filters with wildcards in a trie.
//!
//! Workers do not search for each message: a [`Route`] is the ready list of receivers of a topic, and
//! holds as long as [`Router::version`] stays what it was when the route was made.

use std::collections::HashMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rollcall_domain::presence::Protocol;
use rollcall_domain::topic::{TopicFilter, TopicName};
use rustc_hash::FxHashMap;

use crate::packet::QoS;

/// A session, wherever it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
}

/// One receiver of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receiver {
    pub(crate) session: SessionRef,
    pub(crate) terms: Terms,
}

/// All receivers of a topic, by worker.
#[derive(Debug, Default)]
pub(crate) struct Route {
    version: u64,
    /// Indexed by worker.
    pub(crate) receivers: Vec<Vec<Receiver>>,
    /// Whether anyone needs the message encoded for this version.
    pub(crate) mqtt311: bool,
    pub(crate) mqtt5: bool,
}

impl Route {
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    pub(crate) const fn is_empty(&self) -> bool {
        !self.mqtt311 && !self.mqtt5
    }
}

type Subscribers = FxHashMap<SessionRef, Terms>;

#[derive(Debug)]
pub(crate) struct Router {
    workers: usize,
    version: AtomicU64,
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    exact: HashMap<Box<str>, Subscribers>,
    wild: Node,
}

/// A level of the trie of filters with wildcards.
#[derive(Debug, Default)]
struct Node {
    /// Those whose filter ends here.
    here: Subscribers,
    children: HashMap<Box<str>, Node>,
}

impl Router {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            version: AtomicU64::new(1),
            tables: RwLock::default(),
        }
    }

    /// Grows with every change of a subscription.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Adds or replaces a subscription. Returns whether the session had none to this filter before.
    pub(crate) fn subscribe(
        &self,
        filter: TopicFilter<'_>,
        session: SessionRef,
        terms: Terms,
    ) -> bool {
        let mut tables = self
            .tables
            .write()
            .expect("invariant: no panic under the lock");
        let subscribers = if is_wild(filter) {
            tables.wild.reach(filter)
        } else {
            entry(&mut tables.exact, filter.as_str())
        };
        let new = subscribers.insert(session, terms).is_none();
        self.version.fetch_add(1, Ordering::Release);
        new
    }

    pub(crate) fn unsubscribe(&self, filter: TopicFilter<'_>, session: SessionRef) {
        let mut tables = self
            .tables
            .write()
            .expect("invariant: no panic under the lock");
        if is_wild(filter) {
            tables.wild.remove(&mut filter.as_str().split('/'), session);
        } else if let Some(subscribers) = tables.exact.get_mut(filter.as_str()) {
            subscribers.remove(&session);
            if subscribers.is_empty() {
                tables.exact.remove(filter.as_str());
            }
        }
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Who gets what is published on `topic`. A session with several matching filters gets it once, at
    /// the highest QoS of them.
    pub(crate) fn route(&self, topic: TopicName<'_>) -> Route {
        let tables = self
            .tables
            .read()
            .expect("invariant: no panic under the lock");
        let mut route = Route {
            // Read under the lock, so no change can come between it and the search.
            version: self.version(),
            receivers: vec![Vec::new(); self.workers],
            ..Route::default()
        };
        if let Some(subscribers) = tables.exact.get(topic.as_str()) {
            route.add(subscribers);
        }
        let mut found = Vec::new();
        let first = !topic.as_str().starts_with('$');
        tables
            .wild
            .search(&mut topic.as_str().split('/'), first, &mut found);
        for subscribers in found {
            route.merge(subscribers);
        }
        route
    }
}

impl Route {
    fn add(&mut self, subscribers: &Subscribers) {
        for (&session, &terms) in subscribers {
            self.receivers[usize::from(session.worker)].push(Receiver { session, terms });
            match terms.protocol {
                Protocol::Mqtt31 | Protocol::Mqtt311 => self.mqtt311 = true,
                Protocol::Mqtt5 => self.mqtt5 = true,
            }
        }
    }

    fn merge(&mut self, subscribers: &Subscribers) {
        if self.is_empty() {
            return self.add(subscribers);
        }
        let mut rest = subscribers.clone();
        for receiver in self.receivers.iter_mut().flatten() {
            if let Some(other) = rest.remove(&receiver.session) {
                let terms = &mut receiver.terms;
                terms.qos = terms.qos.max(other.qos);
                terms.no_local &= other.no_local;
                terms.retain_as_published |= other.retain_as_published;
            }
        }
        self.add(&rest);
    }
}

impl Node {
    fn reach(&mut self, filter: TopicFilter<'_>) -> &mut Subscribers {
        let mut node = self;
        for level in filter.as_str().split('/') {
            node = entry(&mut node.children, level);
        }
        &mut node.here
    }

    fn remove<'a>(&mut self, levels: &mut impl Iterator<Item = &'a str>, session: SessionRef) {
        let Some(level) = levels.next() else {
            self.here.remove(&session);
            return;
        };
        if let Some(child) = self.children.get_mut(level) {
            child.remove(levels, session);
            if child.here.is_empty() && child.children.is_empty() {
                self.children.remove(level);
            }
        }
    }

    /// Collects the filters that match the rest of a topic. Wildcards do not reach a first level that
    /// begins with `$` [MQTT5-4.7.2-1].
    fn search<'a, 't>(
        &'a self,
        levels: &mut (impl Iterator<Item = &'t str> + Clone),
        wildcards: bool,
        found: &mut Vec<&'a Subscribers>,
    ) {
        if wildcards && let Some(rest) = self.children.get("#") {
            // Also the level above: `sport/#` matches `sport`.
            found.push(&rest.here);
        }
        let Some(level) = levels.next() else {
            found.push(&self.here);
            return;
        };
        if wildcards && let Some(any) = self.children.get("+") {
            any.search(&mut levels.clone(), true, found);
        }
        if let Some(child) = self.children.get(level) {
            child.search(levels, true, found);
        }
    }
}

fn is_wild(filter: TopicFilter<'_>) -> bool {
    memchr::memchr2(b'+', b'#', filter.as_str().as_bytes()).is_some()
}

/// The value at `key`, made if need be, without an owned key where there is one.
fn entry<'a, V: Default>(map: &'a mut HashMap<Box<str>, V>, key: &str) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.into(), V::default());
    }
    map.get_mut(key).expect("invariant: just inserted")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session(slot: u32) -> SessionRef {
        SessionRef {
            worker: (slot % 2) as u16,
            slot,
            generation: 0,
        }
    }

    fn terms(qos: QoS) -> Terms {
        Terms {
            protocol: Protocol::Mqtt5,
            qos,
            no_local: false,
            retain_as_published: false,
        }
    }

    fn slots(router: &Router, topic: &str) -> Vec<u32> {
        let route = router.route(TopicName::parse(topic).expect("topic"));
        let mut slots: Vec<_> = route
            .receivers
            .iter()
            .flatten()
            .map(|receiver| receiver.session.slot)
            .collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn a_session_with_overlapping_filters_gets_one_copy_at_the_highest_qos() {
        let router = Router::new(2);
        for (filter, qos) in [
            ("a/b", QoS::AtMostOnce),
            ("a/+", QoS::ExactlyOnce),
            ("#", QoS::AtLeastOnce),
        ] {
            let filter = TopicFilter::parse(filter).expect("filter");
            assert!(router.subscribe(filter, session(1), terms(qos)));
        }
        let route = router.route(TopicName::parse("a/b").expect("topic"));
        assert_eq!(route.receivers[1].len(), 1);
        assert_eq!(route.receivers[1][0].terms.qos, QoS::ExactlyOnce);
    }

    #[test]
    fn nothing_is_left_of_a_filter_that_nobody_has() {
        let router = Router::new(2);
        for filter in ["a/b/c", "a/+/c", "a/b/#", "#"] {
            let filter = TopicFilter::parse(filter).expect("filter");
            router.subscribe(filter, session(1), terms(QoS::AtMostOnce));
            let before = router.version();
            router.unsubscribe(filter, session(1));
            assert!(router.version() > before);
        }
        let tables = router.tables.read().expect("lock");
        assert!(tables.exact.is_empty() && tables.wild.children.is_empty());
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "$x", "+"])
    }

    proptest! {
        #[test]
        fn the_tables_find_what_the_matching_rule_finds(
            filters in prop::collection::vec((prop::collection::vec(level(), 1..5), any::<bool>()), 0..30),
            topics in prop::collection::vec(prop::collection::vec(level(), 1..5), 0..30),
        ) {
            let router = Router::new(2);
            let mut filters: Vec<String> = filters
                .into_iter()
                .map(|(levels, hash)| levels.join("/") + if hash { "/#" } else { "" })
                .filter(|filter| !filter.is_empty())
                .collect();
            filters.push("#".into());
            for (slot, filter) in filters.iter().enumerate() {
                let filter = TopicFilter::parse(filter).expect("filter");
                router.subscribe(filter, session(slot as u32), terms(QoS::AtMostOnce));
            }
            for topic in topics.into_iter().map(|levels| levels.join("/").replace('+', "a")) {
                let Some(name) = TopicName::parse(&topic) else { continue };
                let expected: Vec<u32> = (0..filters.len() as u32)
                    .filter(|slot| {
                        let filter = TopicFilter::parse(&filters[*slot as usize]);
                        filter.expect("filter").matches(name)
                    })
                    .collect();
                prop_assert_eq!(slots(&router, &topic), expected, "{}", topic);
            }
        }
    }
}
