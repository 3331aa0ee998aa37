//! The last retained message of each topic.
//!
//! A filter costs what it finds: topics are kept in the order of a tree, and a look-up leaps over the
//! branches that the filter does not reach.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, RwLock};
use std::time::Instant;

use rollcall_domain::identity::Timestamp;
use rollcall_domain::sessions::{self, Change, SessionStore};
use rollcall_domain::topic::{TopicFilter, TopicName};

use crate::message::Message;

/// Expired messages that are purged at one go, so that nobody waits long for the lock.
const PURGED_AT_ONCE: usize = 1_000;

/// What look-ups of a worker may cost in one turn, in levels and lines of memory that are compared: filters may leap
/// much and find nothing.
pub(crate) const EFFORT: usize = 16_384;
/// Bytes of a line of memory.
const LINE: usize = 64;

/// Bounded by count and bytes; a message that does not fit is refused, what is kept stays.
pub(crate) struct Retained {
    max_messages: usize,
    max_bytes: usize,
    kept: RwLock<Kept>,
    /// Told of every change, in the order of changes.
    store: Option<Arc<dyn SessionStore>>,
}

#[derive(Debug, Default)]
struct Kept {
    messages: BTreeMap<Branch, Arc<Message>>,
    /// Those that expire, the next one first.
    expiries: BTreeSet<(Instant, Branch)>,
    bytes: usize,
}

/// A topic with NUL, which no topic holds, in place of `/`: a topic is followed by all that is below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Branch(Arc<[u8]>);

/// There is no room for one more retained message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Retained {
    pub(crate) fn new(
        max_messages: usize,
        max_bytes: usize,
        store: Option<Arc<dyn SessionStore>>,
    ) -> Self {
        Self {
            max_messages,
            max_bytes,
            kept: RwLock::default(),
            store,
        }
    }

    /// Keeps `message` in place of the one before [MQTT5-3.3.1-5].
    pub(crate) fn set(
        &self,
        topic: TopicName<'_>,
        message: Arc<Message>,
        now: Instant,
    ) -> Result<(), Full> {
        let content = self
            .store
            .as_ref()
            .map(|_| message.to_kept(now, Timestamp::now()));
        let mut kept = self
            .kept
            .write()
            .expect("invariant: no panic under the lock");
        self.place(&mut kept, topic, message)?;
        self.note(topic.as_str(), content);
        Ok(())
    }

    /// Keeps what an earlier run kept. Returns whether there is room.
    pub(crate) fn put_back(&self, topic: TopicName<'_>, message: Arc<Message>) -> bool {
        let mut kept = self
            .kept
            .write()
            .expect("invariant: no panic under the lock");
        self.place(&mut kept, topic, message).is_ok()
    }

    /// Tells the store, under the lock. What this server says of itself each run says anew.
    fn note(&self, topic: &str, message: Option<sessions::Message>) {
        if let Some(store) = &self.store
            && !topic.starts_with('$')
        {
            let change = Change::Retained(topic.into(), message);
            store.keep(vec![change], Box::new(|| {}));
        }
    }

    fn place(
        &self,
        kept: &mut Kept,
        topic: TopicName<'_>,
        message: Arc<Message>,
    ) -> Result<(), Full> {
        let branch = Branch::of(topic.as_str());
        let before = kept.messages.get(&branch);
        let messages = kept.messages.len() + usize::from(before.is_none());
        let freed = before.map_or(0, |before| branch.bytes(before));
        let bytes = kept.bytes - freed + branch.bytes(&message);
        if messages > self.max_messages || bytes > self.max_bytes {
            return Err(Full);
        }
        kept.bytes = bytes;
        if let Some(at) = message.expires() {
            kept.expiries.insert((at, branch.clone()));
        }
        let expires = message.expires();
        let before = kept.messages.insert(branch.clone(), message);
        if let Some(at) = before.and_then(|before| before.expires())
            && expires != Some(at)
        {
            kept.expiries.remove(&(at, branch));
        }
        Ok(())
    }

    /// Forgets the message of `topic`: an empty retained payload was published [MQTT5-3.3.1-6].
    pub(crate) fn clear(&self, topic: TopicName<'_>) {
        let branch = Branch::of(topic.as_str());
        let mut kept = self
            .kept
            .write()
            .expect("invariant: no panic under the lock");
        if kept.remove(branch).is_some() {
            self.note(topic.as_str(), None);
        }
    }

    /// Messages for `filter` that have not expired, in the order of their topics, from behind `after` on: so
    /// many, or fewer if they come to more than `bytes`, or if finding them takes all that is left of `effort`. Also
    /// where to go on, `None` if that was all.
    pub(crate) fn matching(
        &self,
        filter: TopicFilter<'_>,
        after: Option<&Branch>,
        now: Instant,
        count: usize,
        bytes: usize,
        effort: &mut usize,
    ) -> (Vec<Arc<Message>>, Option<Branch>) {
        let levels: Vec<&[u8]> = filter.as_str().split('/').map(str::as_bytes).collect();
        let kept = self
            .kept
            .read()
            .expect("invariant: no panic under the lock");
        let from = |start: Bound<&[u8]>| {
            let bounds = (start, Bound::Unbounded);
            kept.messages.range::<[u8], _>(bounds)
        };
        let fixed = levels.iter().take_while(|level| !is_wildcard(level));
        let fixed: Vec<&[u8]> = fixed.copied().collect();
        let mut rest = match after {
            None => from(Bound::Included(&fixed.join(&0))),
            Some(branch) => from(Bound::Excluded(&branch.0)),
        };
        let (mut found, mut size) = (Vec::new(), 0);
        while let Some((branch, message)) = rest.next() {
            match branch.hold_against(&levels) {
                Step::Found if message.is_expired(now) => {}
                Step::Found => {
                    found.push(Arc::clone(message));
                    size += message.len();
                    if found.len() >= count || size >= bytes {
                        return (found, Some(branch.clone()));
                    }
                }
                Step::Next => {}
                Step::Leap(to) => rest = from(Bound::Included(&to)),
                Step::End => break,
            }
            *effort = effort.saturating_sub(levels.len() + branch.0.len() / LINE);
            if *effort == 0 {
                return (found, Some(branch.clone()));
            }
        }
        (found, None)
    }

    /// Forgets expired messages, not too many at a time. Returns how many.
    pub(crate) fn purge(&self, now: Instant) -> usize {
        let due = |kept: &Kept| kept.expiries.first().is_some_and(|(at, _)| *at <= now);
        let kept = self.kept.read();
        if !due(&kept.expect("invariant: no panic under the lock")) {
            return 0;
        }
        let mut kept = self
            .kept
            .write()
            .expect("invariant: no panic under the lock");
        let mut purged = 0;
        while purged < PURGED_AT_ONCE && due(&kept) {
            let (_, branch) = kept.expiries.first().expect("invariant: due").clone();
            if let Some(message) = kept.remove(branch) {
                self.note(message.publish().topic, None);
            }
            purged += 1;
        }
        purged
    }

    /// Messages that are kept, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let kept = self
            .kept
            .read()
            .expect("invariant: no panic under the lock");
        (kept.messages.len(), kept.bytes)
    }
}

impl Kept {
    fn remove(&mut self, branch: Branch) -> Option<Arc<Message>> {
        let message = self.messages.remove(&branch)?;
        self.bytes -= branch.bytes(&message);
        if let Some(at) = message.expires() {
            self.expiries.remove(&(at, branch));
        }
        Some(message)
    }
}

/// Where a look-up goes on.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Found,
    /// With the branch behind this one.
    Next,
    /// With the first branch that is not before these bytes: nothing is found in between.
    Leap(Vec<u8>),
    /// Nothing more is found.
    End,
}

impl Branch {
    fn of(topic: &str) -> Self {
        let byte = |byte| if byte == b'/' { 0 } else { byte };
        Self(topic.bytes().map(byte).collect())
    }

    /// What `message` takes when it is kept here.
    fn bytes(&self, message: &Message) -> usize {
        self.0.len() + message.len()
    }

    fn hold_against(&self, filter: &[&[u8]]) -> Step {
        let topic = &*self.0;
        // Where a level of the topic begins; behind its last one, one more than there are bytes.
        let mut start = 0;
        for (depth, &level) in filter.iter().enumerate() {
            // Wildcards do not reach a first level that begins with `$` [MQTT5-4.7.2-1].
            if depth == 0 && is_wildcard(level) && topic.first() == Some(&b'$') {
                return Step::Leap(vec![b'$' + 1]);
            }
            if level == b"#" {
                // Also the level above: `sport/#` matches `sport`.
                return Step::Found;
            }
            let Some(rest) = topic.get(start..) else {
                // What is below it comes next.
                return Step::Next;
            };
            let end = start + memchr::memchr(0, rest).unwrap_or(rest.len());
            if level != b"+" {
                match topic[start..end].cmp(level) {
                    Ordering::Equal => {}
                    Ordering::Less => return Step::Leap([&topic[..start], level].concat()),
                    Ordering::Greater if start == 0 => return Step::End,
                    Ordering::Greater => return Step::Leap(beyond(&topic[..start - 1])),
                }
            }
            start = end + 1;
        }
        if start > topic.len() {
            Step::Found
        } else {
            Step::Leap(beyond(&topic[..start - 1]))
        }
    }
}

/// What comes after `branch` and all that is below it, and not after anything else.
fn beyond(branch: &[u8]) -> Vec<u8> {
    [branch, &[1]].concat()
}

fn is_wildcard(level: &[u8]) -> bool {
    matches!(level, b"+" | b"#")
}

impl Borrow<[u8]> for Branch {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use rollcall_domain::presence::Protocol;

    use super::*;
    use crate::codec::{self, OutgoingPublish};
    use crate::packet::{PublishProperties, QoS};

    fn message(topic: &str, expiry: Option<u32>, now: Instant) -> Arc<Message> {
        let properties = PublishProperties {
            message_expiry: expiry,
            ..Default::default()
        };
        let mut frame = Vec::new();
        codec::publish(
            &mut frame,
            Protocol::Mqtt5,
            &OutgoingPublish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: false,
                topic,
                packet_id: None,
                properties: &properties,
                subscription_identifiers: &[],
                payload: b"x",
            },
        );
        let qos = QoS::AtMostOnce;
        Arc::new(Message::keep(&frame, Protocol::Mqtt5, qos, true, now))
    }

    fn name(topic: &str) -> TopicName<'_> {
        TopicName::parse(topic).expect("a topic")
    }

    fn found(retained: &Retained, filter: &str, now: Instant) -> Vec<String> {
        let filter = TopicFilter::parse(filter).expect("a filter");
        let mut topics = Vec::new();
        let mut after = None;
        loop {
            // Never more than two at a time.
            let (found, next) =
                retained.matching(filter, after.as_ref(), now, 2, 200, &mut { EFFORT });
            assert!(found.len() <= 2 && (next.is_none() || !found.is_empty()));
            topics.extend(found.iter().map(|it| it.publish().topic.to_owned()));
            after = next;
            if after.is_none() {
                return topics;
            }
        }
    }

    #[test]
    fn room_is_given_back_in_full() {
        let now = Instant::now();
        let retained = Retained::new(2, 1_000, None);
        let set = |topic, expiry| retained.set(name(topic), message(topic, expiry, now), now);
        assert_eq!(set("a", None), Ok(()));
        assert_eq!(set("a", Some(5)), Ok(()));
        assert_eq!(set("a", Some(9)), Ok(()));
        assert_eq!(set("b", Some(9)), Ok(()));
        assert_eq!(set("c", None), Err(Full));
        assert_eq!(set("a", None), Ok(()));
        retained.clear(name("a"));
        retained.clear(name("b"));
        assert_eq!(retained.size(), (0, 0));
        assert!(retained.kept.read().expect("lock").expiries.is_empty());
    }

    #[test]
    fn messages_go_when_their_time_is_over_and_not_before() {
        let now = Instant::now();
        let retained = Retained::new(10, 10_000, None);
        for (topic, expiry) in [("a", Some(5)), ("b", Some(9)), ("c", None)] {
            retained
                .set(name(topic), message(topic, expiry, now), now)
                .expect("room");
        }
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(retained.purge(after(4)), 0);
        assert_eq!(found(&retained, "#", after(5)), ["b", "c"]);
        assert_eq!(retained.purge(after(5)), 1);
        assert_eq!(retained.size().0, 2);
        // Published again with more time.
        retained
            .set(name("b"), message("b", Some(20), now), now)
            .expect("room");
        assert_eq!(retained.purge(after(19)), 0);
        assert_eq!(retained.purge(after(20)), 1);
        assert_eq!(found(&retained, "#", after(20)), ["c"]);
    }

    #[test]
    fn a_look_up_that_finds_little_comes_to_an_end_and_goes_on() {
        let now = Instant::now();
        let retained = Retained::new(20_000, 10_000_000, None);
        for n in 0..10_000 {
            let topic = format!("{n:05}/{}", if n == 9_000 { "b" } else { "a" });
            let message = message(&topic, None, now);
            retained.set(name(&topic), message, now).expect("room");
        }
        let filter = TopicFilter::parse("+/b").expect("a filter");
        let (mut after, mut parts, mut all) = (None, 0, 0);
        loop {
            let mut effort = EFFORT;
            let (found, next) =
                retained.matching(filter, after.as_ref(), now, 9, 9_999, &mut effort);
            (parts, all) = (parts + 1, all + found.len());
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((parts, all), (10_000 * 2 / EFFORT + 1, 1));
        // What one filter has taken is not there for the next one.
        let (mut effort, mut looked) = (EFFORT, 0);
        while effort > 0 {
            retained.matching(filter, None, now, 9, 9_999, &mut effort);
            looked += 1;
        }
        assert_eq!(looked, 1);
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "a-b", "a\u{1}", "", "$x", "+"])
    }

    proptest! {
        #[test]
        fn a_filter_finds_what_the_matching_rule_finds(
            filters in prop::collection::vec((prop::collection::vec(level(), 1..5), any::<bool>()), 1..20),
            topics in prop::collection::vec(prop::collection::vec(level(), 1..5), 0..60),
        ) {
            let now = Instant::now();
            let retained = Retained::new(100, 100_000, None);
            let topics: BTreeSet<String> = topics
                .into_iter()
                .map(|levels| levels.join("/").replace('+', "c"))
                .filter(|topic| !topic.is_empty())
                .collect();
            for topic in &topics {
                retained.set(name(topic), message(topic, None, now), now).expect("room");
            }
            for (levels, hash) in filters {
                let filter = levels.join("/") + if hash { "/#" } else { "" };
                for filter in [&filter, "#", "+/#"] {
                    let Some(parsed) = TopicFilter::parse(filter) else { continue };
                    let expected: Vec<&String> =
                        topics.iter().filter(|topic| parsed.matches(name(topic))).collect();
                    let mut found = found(&retained, filter, now);
                    found.sort();
                    prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{}", filter);
                }
            }
        }
    }
}
