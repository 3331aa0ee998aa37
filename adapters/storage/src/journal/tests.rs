//! The journal against a model of it, and against files as they may become.

mod trouble;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex as StdMutex;

use proptest::prelude::*;
use rollcall_domain::identity::{SessionId, ThingId, Timestamp};
use rollcall_domain::presence::{Change, Farewell, Peer, Protocol, Session};
use tokio::sync::oneshot;

use super::*;

fn config() -> Config {
    Config {
        max_bytes: ByteSize::mib(64),
        durability: Durability::Process,
        commit_interval: Duration::ZERO,
        when_full: WhenFull::Refuse,
    }
}

async fn open(folder: &Path) -> Arc<Journal> {
    Journal::open(&folder.join("presence.db"), &config(), "here", true)
        .await
        .expect("opens")
}

fn session(n: u8) -> Arc<Session> {
    Arc::new(Session {
        id: SessionId::generate(),
        thing: ThingId::from_bytes([n; 16]),
        client_id: format!("client {n}").into(),
        protocol: Protocol::Mqtt5,
        peer: Peer::Ip("[::1]:1883".parse().expect("an address")),
    })
}

fn event(session: &Arc<Session>, change: Change) -> Presence {
    Presence {
        session: Arc::clone(session),
        change,
        at: Timestamp::now(),
    }
}

async fn append(journal: &Journal, batch: Vec<Presence>) -> Arrivals {
    let (kept, answer) = oneshot::channel();
    journal.append(
        batch,
        Box::new(move |arrivals| kept.send(arrivals).expect("waits")),
    );
    answer.await.expect("an answer")
}

async fn fields(journal: &Journal) -> Vec<HashMap<String, String>> {
    let mut all = Vec::new();
    let mut position = 0;
    loop {
        let page = journal.read(position, 7).await.expect("read");
        let Some(last) = page.last() else { return all };
        for (entry, expected) in page.iter().zip(position + 1..) {
            assert_eq!(entry.position, expected, "no gaps");
        }
        position = last.position;
        let fields = page.into_iter().map(|entry| entry.fields.into_iter());
        all.extend(fields.map(|it| it.map(|(n, v)| (n.into_owned(), v.into_owned())).collect()));
    }
}

#[test]
fn the_tail_has_the_latest_events_and_no_gap() {
    let mut tail = tail::Tail::default();
    assert_eq!(tail.read(0, 10), None, "nothing is known");
    let someone = session(1);
    let mut last = 0;
    for len in [1, 700, 3, 2000, 1, 1500, 5000, 1, 9] {
        let group: Vec<Presence> = (last + 1..=last + len)
            .map(|at| Presence {
                at: Timestamp(at),
                ..event(&someone, Change::Arrived)
            })
            .collect();
        tail.push(last + 1, group);
        last += len;
        assert_eq!(tail.read(last, 10), Some(Vec::new()), "nothing after it");
        for back in [1, 2, 10, 11, 3000] {
            let position = last.saturating_sub(back);
            let Some(events) = tail.read(position, 10) else {
                assert!(last > 4096 && back > len, "gone before it had to be");
                continue;
            };
            let expected: Vec<u64> = (position + 1..=last).take(10).collect();
            let positions: Vec<u64> = events.iter().map(|(at, _)| *at).collect();
            let times: Vec<u64> = events.iter().map(|(_, event)| event.at.0).collect();
            assert_eq!((&positions, &times), (&expected, &expected));
        }
    }
    assert_eq!(tail.read(0, 10), None, "no longer here");
    tail.forget(last - 9);
    assert_eq!(tail.read(last - 10, 10), None, "no longer in the journal");
    assert_eq!(tail.read(last - 9, 10).map(|it| it.len()), Some(9));
    tail.forget(last - 1);
    assert_eq!(tail.read(last - 9, 10).map(|it| it.len()), Some(9));
}

/// What a test does to a journal.
#[derive(Clone, Debug)]
enum Step {
    /// Some arrive, some (by their place on the roll) leave.
    Batch {
        arrive: u8,
        leave: Vec<prop::sample::Index>,
    },
    /// One arrives and leaves at once.
    Brief,
    /// Someone leaves who never came.
    Stranger,
    Reopen,
    /// What is on disk now is what a crash would leave.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let leave = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    prop_oneof![
        6 => (0u8..4, leave).prop_map(|(arrive, leave)| Step::Batch { arrive, leave }),
        1 => Just(Step::Brief),
        1 => Just(Step::Stranger),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

async fn play(steps: Vec<Step>) {
    let mut folder = tempfile::tempdir().expect("a folder");
    let mut journal = open(folder.path()).await;
    let mut here: Vec<Arc<Session>> = Vec::new();
    // Who came and left, in order; those whom a crash cut off are made to leave in the order they came.
    let mut expected: Vec<(SessionId, &str)> = Vec::new();
    for step in steps {
        match step {
            Step::Batch { arrive, leave } => {
                let mut batch = Vec::new();
                for n in 0..arrive {
                    let session = session(n);
                    batch.push(event(&session, Change::Arrived));
                    expected.push((session.id, "connect"));
                    here.push(session);
                }
                for place in leave {
                    if here.is_empty() {
                        break;
                    }
                    let session = here.remove(place.index(here.len()));
                    batch.push(event(&session, Change::Left(Farewell::Disconnected)));
                    expected.push((session.id, "disconnect"));
                }
                assert_eq!(append(&journal, batch).await, Arrivals::Kept);
            }
            Step::Brief => {
                let session = session(9);
                let left = Change::Left(Farewell::ConnectionLost);
                append(
                    &journal,
                    vec![event(&session, Change::Arrived), event(&session, left)],
                )
                .await;
                expected.extend([(session.id, "connect"), (session.id, "disconnect")]);
            }
            Step::Stranger => {
                let left = Change::Left(Farewell::ConnectionLost);
                append(&journal, vec![event(&session(8), left)]).await;
            }
            Step::Reopen | Step::Crash => {
                if matches!(step, Step::Crash) {
                    let after = tempfile::tempdir().expect("a folder");
                    for name in ["presence.db", "presence.db-wal"] {
                        let _ = std::fs::copy(folder.path().join(name), after.path().join(name));
                    }
                    journal.close().await;
                    folder = after;
                } else {
                    journal.close().await;
                }
                drop(journal);
                journal = open(folder.path()).await;
                expected.extend(here.drain(..).map(|session| (session.id, "disconnect")));
            }
        }
        let online: Vec<SessionId> = journal.online().iter().map(|it| it.session.id).collect();
        assert_eq!(online.len(), here.len());
        assert!(here.iter().all(|session| online.contains(&session.id)));
    }
    let found = fields(&journal).await;
    let told: Vec<(String, &str)> = expected
        .iter()
        .map(|(id, kind)| (id.to_string(), *kind))
        .collect();
    let read: Vec<(String, &str)> = found
        .iter()
        .map(|it| (it["session_id"].clone(), it["event_type"].as_str()))
        .collect();
    assert_eq!(read, told);
    let times: Vec<u64> = found
        .iter()
        .map(|it| it["occurred_at"].parse().expect("ns"))
        .collect();
    assert!(times.is_sorted_by(|a, b| a < b));
    journal.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn everyone_comes_and_leaves_once_in_order_whatever_happens(steps in prop::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(play(steps));
    }
}

#[tokio::test]
async fn a_batch_of_any_size_is_read_from_any_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = open(folder.path()).await;
    let batch = (0..3_000)
        .map(|n| event(&session((n % 250) as u8), Change::Arrived))
        .collect();
    assert_eq!(append(&journal, batch).await, Arrivals::Kept);
    append(&journal, vec![event(&session(1), Change::Arrived)]).await;
    for position in [0, 1, 999, 1_500, 2_998, 2_999, 3_000] {
        let entries = journal.read(position, 2).await.expect("read");
        assert_eq!(entries[0].position, position + 1);
    }
    assert!(journal.read(3_001, 2).await.expect("read").is_empty());
    journal.close().await;
}

#[tokio::test]
async fn every_page_goes_on_where_the_last_one_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = open(folder.path()).await;
    let sizes = [1, 700, 3, 1024, 1, 2, 1500, 30, 5000, 1, 1, 9];
    for size in sizes {
        let arrival = |n: usize| event(&session((n % 250) as u8), Change::Arrived);
        append(&journal, (0..size).map(arrival).collect()).await;
    }
    let all: u64 = sizes.iter().sum::<usize>() as u64;
    // From the disk alone.
    journal.shared.tail().forget(all);
    for limit in [1, 7, 256, 1024, 4000, 20_000] {
        let (mut position, mut pages) = (0, 0);
        while position < all {
            // What is read one by one need not be read to its end.
            if limit == 1 && position > 50 {
                break;
            }
            let page = journal.read_changes(position, limit).await.expect("read");
            assert!(
                (1..=limit).contains(&page.len()),
                "{} of {limit}",
                page.len()
            );
            for (noted, expected) in page.iter().zip(position + 1..) {
                assert_eq!(noted.position, expected);
            }
            (position, pages) = (position + page.len() as u64, pages + 1);
        }
        assert!(
            pages <= 2 + 2 * (all as usize) / limit,
            "{pages} of {limit}"
        );
    }
    assert!(
        journal
            .read_changes(all, 10)
            .await
            .expect("read")
            .is_empty()
    );
    // What was dropped is skipped, however much it is.
    sqlx::query("DELETE FROM groups WHERE last <= 8000")
        .execute(&journal.pool)
        .await
        .expect("deleted");
    let next = journal.read_changes(2, 10).await.expect("read");
    assert_eq!((next[0].position, next.len()), (3262, 10));
    journal.close().await;
}

#[tokio::test]
async fn marks_of_the_relay_are_remembered_and_a_new_name_begins_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = open(folder.path()).await;
    append(&journal, vec![event(&session(1), Change::Arrived)]).await;
    let producer = journal.producer();
    journal.set_relayed(1).await.expect("marked");
    journal.close().await;
    drop(journal);
    let journal = open(folder.path()).await;
    assert_eq!(
        (journal.relayed(), journal.last(), journal.producer()),
        (1, 2, producer)
    );
    let renewed = journal.renew_producer().await.expect("renamed");
    assert_ne!(renewed, producer);
    journal.close().await;
    drop(journal);
    assert_eq!(open(folder.path()).await.producer(), renewed);
}
