//! Random lives of sessions against a model that keeps everything in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc;

use proptest::prelude::*;
use rollcall_domain::identity::{ThingId, Timestamp};
use rollcall_domain::presence::Protocol;
use rollcall_domain::sessions::{
    Delivery, KeptSession, Message, MessageNumber, Session, SessionNumber, Subscription, Will,
};
use tempfile::TempDir;

use super::*;

const FAR: Timestamp = Timestamp(i64::MAX as u64);

fn open(path: &Path) -> (Arc<Sessions>, Left) {
    Sessions::open(path, Durability::Process, Duration::ZERO).expect("sound")
}

/// Keeps `batches`, and returns when the last one is.
fn keep(sessions: &Sessions, batches: Vec<Vec<Change>>) {
    let (kept, done) = mpsc::channel();
    let count = batches.len();
    for batch in batches {
        let kept = kept.clone();
        sessions.keep(batch, Box::new(move || kept.send(()).expect("awaited")));
    }
    for _ in 0..count {
        done.recv_timeout(Duration::from_secs(60)).expect("kept");
    }
}

/// The file as it is now, as if the process had been killed.
fn after_a_crash(path: &Path) -> Left {
    let folder = TempDir::new().expect("folder");
    for end in ["db", "db-wal"] {
        let name = path.with_extension(end);
        let copy = folder.path().join(name.file_name().expect("a name"));
        fs::copy(name, copy).expect("copied");
    }
    open(&folder.path().join("sessions.db")).1
}

fn number(number: u64) -> SessionNumber {
    SessionNumber::new(number).expect("not 0")
}

fn message(number: u64) -> Message {
    Message {
        packet: number.to_be_bytes().as_slice().into(),
        protocol: if number.is_multiple_of(2) {
            Protocol::Mqtt5
        } else {
            Protocol::Mqtt311
        },
        qos: 1,
        retain: number.is_multiple_of(3),
        expires: number.is_multiple_of(5).then_some(FAR),
    }
}

fn session(client: u64) -> Session {
    Session {
        thing: client
            .is_multiple_of(2)
            .then(|| ThingId::from_bytes([client as u8; 16])),
        client_id: client.to_string().into(),
        protocol: Protocol::Mqtt5,
        expiry: Duration::from_secs(1000),
    }
}

/// What ought to be kept.
#[derive(Default)]
struct Model {
    sessions: BTreeMap<SessionNumber, KeptSession>,
    messages: BTreeMap<MessageNumber, Message>,
    retained: BTreeMap<Box<str>, Message>,
}

impl Model {
    fn apply(&mut self, change: &Change) {
        let session = match change {
            Change::Connected(number, session, will) => {
                let kept = self.sessions.entry(*number).or_insert_with(|| KeptSession {
                    number: *number,
                    session: session.clone(),
                    ends: Timestamp(0),
                    subscriptions: Vec::new(),
                    deliveries: Vec::new(),
                    received: Vec::new(),
                    will: None,
                });
                kept.session = session.clone();
                kept.ends = Timestamp(0);
                kept.will = will.clone().map(|will| (will, Timestamp(0)));
                return;
            }
            Change::Ended(number) => {
                self.sessions.remove(number);
                return;
            }
            Change::Message(number, message) => {
                self.messages.insert(*number, message.clone());
                return;
            }
            Change::Retained(topic, Some(message)) => {
                self.retained.insert(topic.clone(), message.clone());
                return;
            }
            Change::Retained(topic, None) => {
                self.retained.remove(topic);
                return;
            }
            Change::Left { session, .. }
            | Change::WillGone(session)
            | Change::Subscribed(session, _)
            | Change::Unsubscribed(session, _)
            | Change::Queued(session, _)
            | Change::Sent(session, ..)
            | Change::Released(session, ..)
            | Change::Done(session, _)
            | Change::Received(session, _)
            | Change::Unreceived(session, _) => session,
        };
        let Some(kept) = self.sessions.get_mut(session) else {
            return;
        };
        let mut deliveries = kept.deliveries.iter_mut();
        match change {
            Change::Left { ends, will, .. } => {
                kept.ends = *ends;
                kept.will = kept.will.take().and_then(|(it, _)| Some((it, (*will)?)));
            }
            Change::WillGone(_) => kept.will = None,
            Change::Subscribed(_, new) => {
                let mut known = kept.subscriptions.iter_mut();
                match known.find(|it| it.filter == new.filter) {
                    Some(known) => *known = new.clone(),
                    None => kept.subscriptions.push(new.clone()),
                }
            }
            Change::Unsubscribed(_, filter) => kept.subscriptions.retain(|it| it.filter != *filter),
            Change::Queued(_, delivery) => kept.deliveries.push(delivery.clone()),
            Change::Sent(_, message, place) => {
                if let Some(it) = deliveries.find(|it| it.message == *message) {
                    it.place = Some(*place);
                }
            }
            Change::Released(_, message, order) => {
                if let Some(it) = deliveries.find(|it| it.message == *message) {
                    it.released = Some(*order);
                }
            }
            Change::Done(_, message) => kept.deliveries.retain(|it| it.message != *message),
            Change::Received(_, packet) => {
                if !kept.received.contains(packet) {
                    kept.received.push(*packet);
                }
            }
            Change::Unreceived(_, packet) => kept.received.retain(|it| it != packet),
            _ => unreachable!("dealt with above"),
        }
    }

    fn check(&self, mut left: Left) {
        let mut expected: Vec<KeptSession> = self.sessions.values().cloned().collect();
        for (session, found) in expected.iter_mut().zip(&mut left.sessions) {
            session.received.sort_unstable();
            found.received.sort_unstable();
            session
                .deliveries
                .sort_by_key(|it| (it.place.is_none(), it.place, it.message));
            if session.ends == Timestamp(0) {
                // It was connected: it has left with that run.
                assert!(found.ends > Timestamp::now());
                session.ends = found.ends;
                if let (Some(it), Some(found)) = (&mut session.will, &found.will) {
                    assert!(found.1 <= Timestamp::now());
                    it.1 = found.1;
                }
            }
        }
        assert_eq!(left.sessions, expected);
        let wanted = |number: &MessageNumber| {
            let mut deliveries = self.sessions.values().flat_map(|it| &it.deliveries);
            deliveries.any(|it| it.message == *number)
        };
        let messages = self.messages.iter().filter(|(number, _)| wanted(number));
        let messages: Vec<_> = messages.map(|(n, it)| (*n, it.clone())).collect();
        assert_eq!(left.messages, messages);
        left.retained.sort_by(|a, b| a.0.cmp(&b.0));
        let retained = self.retained.iter().map(|(t, it)| (t.clone(), it.clone()));
        assert_eq!(left.retained, retained.collect::<Vec<_>>());
    }
}

/// A batch, from dice: of a few sessions, some of which are there, and some messages.
fn batch(dice: &[(u8, u64, u64)], next: &mut u64) -> Vec<Change> {
    let mut changes = Vec::new();
    for &(kind, a, b) in dice {
        let session = number(a % 4 + 1);
        let known = number(b % (*next + 1) + 1);
        let change = match kind {
            0 | 1 => {
                let will = (kind == 0).then(|| Will {
                    message: message(b),
                    delay: Duration::ZERO,
                });
                // A will has no expiry of its own until it is published.
                let will = will.map(|mut it| {
                    it.message.expires = None;
                    it
                });
                Change::Connected(session, self::session(a % 4), will)
            }
            2 => Change::Left {
                session,
                ends: FAR,
                will: Some(FAR).filter(|_| b.is_multiple_of(2)),
            },
            3 if b.is_multiple_of(3) => Change::Ended(session),
            3 => Change::WillGone(session),
            4 | 5 => Change::Subscribed(
                session,
                Subscription {
                    filter: format!("filter/{}", b % 5).into(),
                    options: (b % 3) as u8,
                    identifier: (b.is_multiple_of(2)).then_some(b as u32),
                },
            ),
            6 => Change::Unsubscribed(session, format!("filter/{}", b % 5).into()),
            7..=11 => {
                *next += 1;
                changes.push(Change::Message(number(*next), message(*next)));
                let queued = |session, qos| {
                    let delivery = Delivery {
                        message: number(*next),
                        qos,
                        retain: b.is_multiple_of(2),
                        properties: [b as u8, 7][..(b % 3) as usize].into(),
                        group: b.is_multiple_of(3).then(|| "$share/a/b".into()),
                        place: None,
                        released: None,
                    };
                    Change::Queued(session, delivery)
                };
                if b.is_multiple_of(2) {
                    changes.push(queued(number((a + 1) % 4 + 1), 2));
                }
                queued(session, 1)
            }
            12 => Change::Sent(session, known, b),
            13 => Change::Released(session, known, number(b + 1)),
            14..=17 => Change::Done(session, known),
            18 => Change::Received(session, (b % 4) as u16 + 1),
            19 => Change::Unreceived(session, (b % 4) as u16 + 1),
            20 => Change::Retained(b.to_string().into(), Some(message(a))),
            _ => Change::Retained(b.to_string().into(), None),
        };
        changes.push(change);
    }
    changes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn what_is_kept_is_there_after_a_crash_and_after_a_stop(
        runs in prop::collection::vec(
            prop::collection::vec(
                prop::collection::vec((0u8..22, 0u64..30, 0u64..30), 1..12), 1..8), 1..4),
    ) {
        let folder = TempDir::new().expect("folder");
        let path = folder.path().join("sessions.db");
        let mut model = Model::default();
        for run in runs {
            let (sessions, left) = open(&path);
            // Sessions have the numbers below.
            let mut next = left.next.max(4);
            model.check(left.clone());
            // Those that were connected have left.
            for kept in left.sessions {
                model.sessions.insert(kept.number, kept);
            }
            let batches: Vec<Vec<Change>> = run.iter().map(|dice| batch(dice, &mut next)).collect();
            for change in batches.iter().flatten() {
                model.apply(change);
            }
            keep(&sessions, batches);
            prop_assert_eq!(sessions.backlog(), 0);
            model.check(after_a_crash(&path));
            drop(sessions);
        }
        model.check(open(&path).1);
    }
}

#[test]
fn expired_messages_are_gone_unless_they_are_under_way() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("sessions.db");
    let (sessions, _) = open(&path);
    let mut changes = vec![Change::Connected(number(1), session(1), None)];
    for n in 1..=3 {
        let expires = Some(if n == 3 { FAR } else { Timestamp::now() });
        changes.push(Change::Message(
            number(n),
            Message {
                expires,
                ..message(n)
            },
        ));
        let delivery = Delivery {
            message: number(n),
            qos: 2,
            retain: false,
            properties: [].into(),
            group: None,
            place: None,
            released: None,
        };
        changes.push(Change::Queued(number(1), delivery));
    }
    changes.push(Change::Sent(number(1), number(1), 1));
    for (topic, expires) in [("past", Timestamp::now()), ("future", FAR)] {
        let message = Message {
            expires: Some(expires),
            ..message(1)
        };
        changes.push(Change::Retained(topic.into(), Some(message)));
    }
    keep(&sessions, vec![changes]);
    drop(sessions);
    let (_sessions, left) = open(&path);
    let deliveries: Vec<u64> = left.sessions[0]
        .deliveries
        .iter()
        .map(|it| it.message.get())
        .collect();
    assert_eq!(deliveries, [1, 3]);
    assert_eq!(left.messages.len(), 2);
    assert_eq!(left.retained.len(), 1);
    assert_eq!(&*left.retained[0].0, "future");
}

#[test]
fn a_full_disk_keeps_everybody_waiting_and_loses_nothing() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("sessions.db");
    let shared = Arc::new(Shared::default());
    let lock = Lock::take(&path).expect("free");
    let connection = connect(&path, Durability::Disk).expect("made");
    let pages: i64 = connection
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .expect("a number");
    connection
        .pragma_update(None, "max_page_count", pages + 4)
        .expect("set");
    let writer = Writer::new(connection, Arc::clone(&shared), Duration::ZERO);
    let writer = std::thread::spawn(move || writer.run());
    let sessions = Sessions {
        shared: Arc::clone(&shared),
        writer: Mutex::new(Some(writer)),
        _lock: lock,
    };
    let retained = |n: u64| {
        let packet = vec![n as u8; 1000].into();
        let message = Message {
            packet,
            ..message(2)
        };
        vec![Change::Retained(n.to_string().into(), Some(message))]
    };
    let (kept, told) = mpsc::channel();
    let keep = |n: u64| {
        let kept = kept.clone();
        let done = Box::new(move || kept.send(n).expect("awaited"));
        sessions.keep(retained(n), done);
    };
    // Some are kept one by one: all together would have no room.
    let first = 4;
    for n in 0..first {
        keep(n);
        told.recv().expect("kept");
    }
    let mut count = first;
    while !sessions.is_failing() {
        keep(count);
        count += 1;
        std::thread::sleep(Duration::from_millis(1));
        assert!(count < 10_000, "the disk has no end");
    }
    let acknowledged = first + told.try_iter().count() as u64;
    assert!(acknowledged < count);
    assert!(sessions.backlog() >= 1000);
    let crashed = after_a_crash(&path);
    assert!(crashed.retained.len() as u64 >= acknowledged);
    // It is given up in the end: nobody was told that the rest is kept.
    drop(sessions);
    assert_eq!(told.try_iter().count(), 0);
    assert_eq!(open(&path).1.retained.len(), crashed.retained.len());
}

#[test]
fn nobody_is_left_a_message_that_is_not_there() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("sessions.db");
    let (sessions, _) = open(&path);
    let queued = |session, message| {
        let delivery = Delivery {
            message: number(message),
            qos: 1,
            retain: false,
            properties: [].into(),
            group: None,
            place: None,
            released: None,
        };
        Change::Queued(number(session), delivery)
    };
    // The message goes, since whom it is for is gone, before it is meant for another one.
    keep(
        &sessions,
        vec![vec![
            Change::Connected(number(1), session(1), None),
            Change::Message(number(9), message(9)),
            queued(2, 9),
        ]],
    );
    keep(&sessions, vec![vec![queued(1, 9)]]);
    drop(sessions);
    let (_, left) = open(&path);
    assert!(left.messages.is_empty());
    // Its number may be given out again.
    assert_eq!(left.next, 2);
    assert_eq!(left.sessions[0].deliveries, []);
}

#[test]
fn a_foreign_or_damaged_file_is_refused() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("sessions.db");
    fs::write(
        &path,
        "this is no database, but it is long enough to be taken for one".repeat(99),
    )
    .expect("written");
    let error = Sessions::open(&path, Durability::Disk, Duration::ZERO)
        .err()
        .expect("refused");
    assert!(matches!(error, OpenError::Open { .. }), "{error:?}");
    assert!(
        error.to_string().contains("not a database of rollcall"),
        "{error}"
    );

    fs::remove_file(&path).expect("removed");
    let foreign = Connection::open(&path).expect("made");
    foreign.execute_batch("CREATE TABLE x (y)").expect("made");
    drop(foreign);
    let error = Sessions::open(&path, Durability::Disk, Duration::ZERO)
        .err()
        .expect("refused");
    assert!(matches!(error, OpenError::Open { .. }), "{error:?}");

    fs::remove_file(&path).expect("removed");
    let (sessions, _) = open(&path);
    keep(
        &sessions,
        vec![vec![
            Change::Connected(number(1), session(1), None),
            Change::Received(number(1), 1),
        ]],
    );
    drop(sessions);
    let ours = Connection::open(&path).expect("ours");
    ours.execute("UPDATE sessions SET protocol = 77", [])
        .expect("damaged");
    drop(ours);
    let error = Sessions::open(&path, Durability::Disk, Duration::ZERO)
        .err()
        .expect("refused");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[test]
fn one_process_has_the_file() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("sessions.db");
    let _sessions = open(&path);
    let error = Sessions::open(&path, Durability::Disk, Duration::ZERO)
        .err()
        .expect("refused");
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
}

#[test]
fn a_file_that_was_large_shrinks_when_it_is_quiet() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("sessions.db");
    let (sessions, _) = open(&path);
    let held = number(1);
    let mut changes = vec![Change::Connected(held, session(1), None)];
    for n in 1..=4_000 {
        let packet = vec![n as u8; 4096].into();
        let large = Message {
            packet,
            ..message(n)
        };
        changes.push(Change::Message(number(n), large));
        let delivery = Delivery {
            message: number(n),
            qos: 1,
            retain: false,
            properties: [].into(),
            group: None,
            place: None,
            released: None,
        };
        changes.push(Change::Queued(held, delivery));
    }
    keep(&sessions, vec![changes]);
    let size = || fs::metadata(&path).expect("a file").len();
    let whole = size();
    assert!(whole > 12 << 20, "{whole}");
    keep(&sessions, vec![vec![Change::Ended(held)]]);
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while size() > 5 << 20 {
        assert!(std::time::Instant::now() < end, "{} of {whole}", size());
        std::thread::yield_now();
    }
    keep(
        &sessions,
        vec![vec![Change::Retained("t".into(), Some(message(3)))]],
    );
    drop(sessions);
    let (sessions, left) = open(&path);
    assert_eq!((left.sessions.len(), left.retained.len()), (0, 1));
    drop(sessions);

    // One of before that could be, which is mostly room.
    let old = Connection::open(&path).expect("opens");
    old.execute_batch(
        "PRAGMA auto_vacuum = NONE; VACUUM; CREATE TABLE large (it BLOB);
         INSERT INTO large VALUES (zeroblob(20000000)); DROP TABLE large",
    )
    .expect("swells");
    drop(old);
    assert!(size() > 20_000_000);
    let (sessions, left) = open(&path);
    assert_eq!(left.retained.len(), 1);
    drop(sessions);
    assert!(size() < 1 << 20, "{}", size());
}
