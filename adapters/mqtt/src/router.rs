//! Which sessions a message is for: exact filters in a table, filters with wildcards in a trie.
//!
//! Workers do not search for each message: a [`Route`] is the ready list of receivers of a topic, and
//! holds until a subscription changes that may reach the topic ([`Router::holds`]).

mod trie;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use rollcall_domain::topic::{SubscriptionFilter, TopicFilter, TopicName};
use rustc_hash::{FxBuildHasher, FxHashMap};

use trie::Node;

use crate::groups::{Availability, Group, Member};
use crate::route::{Receiver, Route, SessionRef, Terms, Via, identifiers};

/// Topics with the same first levels change together: enough to tell channels from one another.
const LEVELS: usize = 3;
/// Versions of topics; those that fall together by chance only look up a route too often.
const VERSIONS: usize = 4096;

type Subscribers = FxHashMap<SessionRef, Terms>;

#[derive(Debug)]
pub(crate) struct Router {
    workers: usize,
    /// Grows when a filter changes that may reach any topic.
    version: AtomicU64,
    /// By the first levels of topics: grows when a filter changes that reaches no others.
    versions: Box<[AtomicU64]>,
    tables: RwLock<Tables>,
    /// Subscriptions, and those of them that are in groups.
    subscriptions: AtomicUsize,
    in_groups: AtomicUsize,
}

#[derive(Debug, Default)]
struct Tables {
    exact: HashMap<Box<str>, Here>,
    wild: Node,
}

/// Those who have the same filter.
#[derive(Debug, Default)]
struct Here {
    subscribers: Subscribers,
    /// By their filters.
    groups: Vec<Arc<Group>>,
    /// Members of all groups.
    in_groups: usize,
}

impl Router {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            version: AtomicU64::new(1),
            versions: (0..VERSIONS).map(|_| AtomicU64::new(0)).collect(),
            tables: RwLock::default(),
            subscriptions: AtomicUsize::new(0),
            in_groups: AtomicUsize::new(0),
        }
    }

    /// Whether no subscription has changed that may reach the topic of `route`.
    #[inline]
    pub(crate) fn holds(&self, route: &Route) -> bool {
        self.version_at(route.place) == route.version
    }

    /// The sum of both: neither ever shrinks.
    #[inline]
    fn version_at(&self, place: usize) -> u64 {
        self.version.load(Ordering::Acquire) + self.versions[place].load(Ordering::Acquire)
    }

    fn on_change(&self, filter: TopicFilter<'_>) {
        let start = first_levels(filter.as_str());
        let version = match is_wild(start) {
            true => &self.version,
            false => &self.versions[place(start)],
        };
        version.fetch_add(1, Ordering::Release);
    }

    /// Adds or replaces a subscription [MQTT5-3.8.4-3]; for one in a group, members are chosen by
    /// `availability`.
    pub(crate) fn subscribe(
        &self,
        filter: SubscriptionFilter<'_>,
        session: SessionRef,
        terms: Terms,
        availability: Option<&Arc<Availability>>,
    ) {
        self.change(filter.topics(), |here| {
            if filter.share().is_none() {
                here.subscribers.insert(session, terms);
                return true;
            }
            let availability = availability.expect("invariant: members of groups have one");
            here.join(filter.as_str(), session, terms, Arc::clone(availability))
        });
    }

    /// The group of this filter, if it has members.
    pub(crate) fn group(&self, filter: &str) -> Option<Arc<Group>> {
        let topics = SubscriptionFilter::parse(filter)?.topics();
        let tables = self
            .tables
            .read()
            .expect("invariant: no panic under the lock");
        let here = match is_wild(topics.as_str()) {
            true => tables.wild.at(topics.as_str())?,
            false => tables.exact.get(topics.as_str())?,
        };
        let place = here.group(filter).ok()?;
        Some(Arc::clone(&here.groups[place]))
    }

    /// Ends a subscription, alone or in a group.
    pub(crate) fn unsubscribe(&self, filter: SubscriptionFilter<'_>, session: SessionRef) {
        self.change(filter.topics(), |here| match filter.share() {
            None => here.subscribers.remove(&session).is_some(),
            Some(_) => here.leave(filter.as_str(), session),
        });
    }

    /// How many subscriptions there are, and how many of them are in groups.
    pub(crate) fn subscriptions(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        (count(&self.subscriptions), count(&self.in_groups))
    }

    /// Has `change` change what is at `filter` and return whether routes are different now.
    fn change(&self, filter: TopicFilter<'_>, change: impl FnOnce(&mut Here) -> bool) {
        let change = |here: &mut Here| {
            let (alone, in_groups) = (here.subscribers.len(), here.in_groups);
            let changed = change(here);
            // Wraps around: what is less by as much.
            let joined = here.in_groups.wrapping_sub(in_groups);
            let more = here.subscribers.len().wrapping_sub(alone);
            self.in_groups.fetch_add(joined, Ordering::Relaxed);
            let more = more.wrapping_add(joined);
            self.subscriptions.fetch_add(more, Ordering::Relaxed);
            changed
        };
        let mut tables = self
            .tables
            .write()
            .expect("invariant: no panic under the lock");
        let changed = if is_wild(filter.as_str()) {
            tables.wild.change(filter.as_str(), change)
        } else {
            let here = entry(&mut tables.exact, filter.as_str());
            let changed = change(here);
            if here.is_empty() {
                tables.exact.remove(filter.as_str());
            }
            changed
        };
        if changed {
            self.on_change(filter);
        }
    }

    /// Who gets what is published on `topic`. A session with several matching filters gets it once, at the
    /// highest QoS of them [MQTT5-3.3.4-2]; members of groups get copies of their own.
    pub(crate) fn route(&self, topic: TopicName<'_>) -> Route {
        let tables = self
            .tables
            .read()
            .expect("invariant: no panic under the lock");
        let mut found = Vec::new();
        found.extend(tables.exact.get(topic.as_str()));
        let wildcards = !topic.as_str().starts_with('$');
        tables
            .wild
            .search(Some(topic.as_str()), wildcards, &mut found);

        let place = place(first_levels(topic.as_str()));
        let mut route = Route {
            place,
            // Read under the lock, so no change can come between it and the search.
            version: self.version_at(place),
            receivers: vec![Vec::new(); self.workers],
            ..Route::default()
        };
        let lists = found.iter().map(|here| &here.subscribers);
        let all = lists.flatten().map(|(&session, &terms)| (session, terms));
        let mut all: Vec<(SessionRef, Terms)> = all.collect();
        if found.len() > 1 {
            all.sort_unstable_by_key(|(session, _)| *session);
        }
        for same in all.chunk_by(|(one, _), (other, _)| one == other) {
            route.add(Receiver::of(same));
        }
        for here in found {
            route.groups.extend(here.groups.iter().cloned());
        }
        route
    }
}

impl Here {
    /// Returns whether there is a new group. Routes name groups, not members: they change with the first
    /// and the last one alone.
    fn join(
        &mut self,
        filter: &str,
        session: SessionRef,
        terms: Terms,
        availability: Arc<Availability>,
    ) -> bool {
        let place = self.group(filter);
        if let Err(new) = place {
            self.groups.insert(new, Arc::new(Group::new(filter)));
        }
        let group = &self.groups[place.unwrap_or_else(|new| new)];
        let via = Via {
            identifiers: identifiers([&terms]),
            group: Some(Arc::clone(group)),
            own: None,
        };
        let receiver = Receiver {
            session,
            terms,
            via: Some(Arc::new(via)),
        };
        let before = group.len();
        group.join(Member {
            receiver,
            availability,
        });
        self.in_groups += group.len() - before;
        place.is_err()
    }

    /// Returns whether a group is gone with its last member.
    fn leave(&mut self, filter: &str, session: SessionRef) -> bool {
        let Ok(place) = self.group(filter) else {
            return false;
        };
        let before = self.groups[place].len();
        self.groups[place].leave(session);
        let left = self.groups[place].len();
        self.in_groups -= before - left;
        if left == 0 {
            self.groups.remove(place);
        }
        left == 0
    }

    /// Where the group is that names `filter`, or would be.
    fn group(&self, filter: &str) -> Result<usize, usize> {
        self.groups.binary_search_by(|it| it.filter().cmp(filter))
    }

    fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && self.groups.is_empty()
    }
}

fn is_wild(filter: &str) -> bool {
    memchr::memchr2(b'+', b'#', filter.as_bytes()).is_some()
}

fn first_levels(topic: &str) -> &str {
    let end = memchr::memchr_iter(b'/', topic.as_bytes()).nth(LEVELS - 1);
    &topic[..end.unwrap_or(topic.len())]
}

fn place(first_levels: &str) -> usize {
    FxBuildHasher.hash_one(first_levels) as usize % VERSIONS
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
    use rollcall_domain::presence::Protocol;

    use super::*;
    use crate::packet::QoS;

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
            identifier: None,
            number: None,
        }
    }

    fn subscribe(router: &Router, filter: &str, session: SessionRef, terms: Terms) {
        let filter = SubscriptionFilter::parse(filter).expect("filter");
        router.subscribe(filter, session, terms, Some(&Arc::default()));
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
            subscribe(&router, filter, session(1), terms(qos));
        }
        let route = router.route(TopicName::parse("a/b").expect("topic"));
        assert_eq!(route.receivers[1].len(), 1);
        assert_eq!(route.receivers[1][0].terms.qos, QoS::ExactlyOnce);
    }

    #[test]
    fn nothing_is_left_of_a_filter_that_nobody_has() {
        let router = Router::new(2);
        for filter in ["a/b/c", "a/+/c", "a/b/#", "#"] {
            subscribe(&router, filter, session(1), terms(QoS::AtMostOnce));
            let topic = TopicName::parse("a/b/c").expect("topic");
            let route = router.route(topic);
            assert!(router.holds(&route));
            let filter = SubscriptionFilter::parse(filter).expect("filter");
            router.unsubscribe(filter, session(1));
            assert!(!router.holds(&route));
        }
        let tables = router.tables.read().expect("lock");
        assert!(tables.exact.is_empty() && tables.wild.nodes() == 0);
    }

    #[test]
    fn deep_filters_do_not_take_a_node_for_each_level() {
        let router = Router::new(2);
        for slot in 0..100 {
            // The binary digits of the slot, then the same levels, then what nobody else has.
            let level = |bit: u32| if slot >> bit & 1 == 1 { "+/" } else { "a/" };
            let filter: String = (0..7).map(level).collect();
            let filter = format!("{filter}{}{slot}", "a/+/".repeat(40));
            subscribe(&router, &filter, session(slot), terms(QoS::AtMostOnce));
        }
        let nodes = router.tables.read().expect("lock").wild.nodes();
        assert!(nodes < 200, "{nodes}");
        let topic = format!("{}{}99", "a/".repeat(7), "a/b/".repeat(40));
        assert_eq!(slots(&router, &topic), [99]);
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
                subscribe(&router, filter, session(slot as u32), terms(QoS::AtMostOnce));
            }
            // Some come and go.
            let (stay, gone) = (0..filters.len()).partition::<Vec<_>, _>(|slot| slot % 3 != 1);
            for slot in gone {
                let filter = SubscriptionFilter::parse(&filters[slot]).expect("filter");
                router.unsubscribe(filter, session(slot as u32));
            }
            for topic in topics.into_iter().map(|levels| levels.join("/").replace('+', "a")) {
                let Some(name) = TopicName::parse(&topic) else { continue };
                let expected: Vec<u32> = stay
                    .iter()
                    .filter(|slot| {
                        let filter = TopicFilter::parse(&filters[**slot]);
                        filter.expect("filter").matches(name)
                    })
                    .map(|slot| *slot as u32)
                    .collect();
                prop_assert_eq!(slots(&router, &topic), expected, "{}", topic);
            }
            for slot in stay {
                let filter = SubscriptionFilter::parse(&filters[slot]).expect("filter");
                router.unsubscribe(filter, session(slot as u32));
            }
            prop_assert_eq!(router.tables.read().expect("lock").wild.nodes(), 0);
        }
    }
}
