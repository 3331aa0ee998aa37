//! What the logs of events promise.

use std::sync::Arc;

use rollcall_domain::entity::{Metadata, Status};
use rollcall_domain::event::{Entry, Event, Stream};
use rollcall_domain::groups::{Group, GroupStore};
use rollcall_domain::identity::{GroupId, Timestamp, UserId};
use rollcall_domain::ports::EventLog;
use rollcall_storage::database::Database;

pub(crate) fn event(stream: Stream, number: usize) -> Event {
    Event::operation(stream, "test.view", [("number", number.to_string())])
}

pub(crate) fn log(database: &Database, stream: Stream) -> Arc<dyn EventLog> {
    database.log(stream).expect("a log")
}

pub(crate) fn value<'a>(entry: &'a Entry, name: &str) -> &'a str {
    let field = entry.fields.iter().find(|(field, _)| field == name);
    &field.expect("a field").1
}

pub(crate) fn group(number: u8, name: &str) -> Group<GroupId> {
    Group {
        id: GroupId::from_bytes([number; 16]),
        owner: UserId::from_bytes([1; 16]),
        ancestors: Vec::new(),
        name: name.into(),
        description: String::new(),
        metadata: Metadata::new(),
        status: Status::Enabled,
        created_at: Timestamp(1),
        update: None,
    }
}

/// Every event is there once, at the next position and a later time than the one before.
pub(crate) async fn check(log: &dyn EventLog, count: usize) -> Vec<Entry> {
    let entries = log.read(0, 100_000).await.expect("read");
    assert_eq!(entries.len(), count);
    let mut last = 0;
    for (entry, position) in entries.iter().zip(1..) {
        assert_eq!(entry.position, position);
        let at: u64 = value(entry, "occurred_at").parse().expect("nanoseconds");
        assert!(at > last, "{at} after {last}");
        last = at;
    }
    entries
}

pub(crate) async fn positions_have_no_gaps_and_time_goes_on_whoever_appends(database: &Database) {
    let (writers, each) = (8, 50);
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let database = database.clone();
        tasks.spawn(async move {
            for number in 0..each {
                // Times that go back: others have appended later ones.
                let mut event = event(Stream::Things, number);
                event.occurred_at = Timestamp(1_000_000 - (writer * each + number) as u64);
                let both = vec![event, self::event(Stream::Users, number)];
                database.record_events(both).await.expect("kept");
            }
        });
    }
    tasks.join_all().await;
    for stream in [Stream::Things, Stream::Users] {
        let log = log(database, stream);
        assert_eq!(log.last(), (writers * each) as u64);
        check(&*log, writers * each).await;
    }
    assert_eq!(log(database, Stream::Bootstrap).last(), 0);
    assert!(database.log(Stream::Mqtt).is_none());
}

pub(crate) async fn what_is_recorded_keeps_its_order_with_changes(database: &Database) {
    let log = log(database, Stream::Users);
    for number in 0..20 {
        let event = event(Stream::Users, number);
        match number % 2 {
            0 => database.record_events(vec![event]).await.expect("kept"),
            _ => {
                let groups = [group(number as u8, &number.to_string())];
                let kept = database.add_groups(&groups, vec![event]);
                kept.await.expect("kept");
            }
        }
        // Who was told that it is kept can read it.
        log.wait(number as u64).await;
        assert_eq!(log.read(number as u64, 10).await.expect("read").len(), 1);
    }
    let entries = check(&*log, 20).await;
    let numbers = entries
        .iter()
        .map(|entry| value(entry, "number").to_owned());
    let expected = (0..20).map(|number| number.to_string());
    assert!(numbers.eq(expected));
}

pub(crate) async fn a_change_that_fails_says_nothing(database: &Database) {
    let add = async |number, name| {
        let groups = [group(number, name)];
        let event = event(Stream::Users, number.into());
        database.add_groups(&groups, vec![event]).await
    };
    add(1, "a").await.expect("kept");
    add(2, "a").await.expect_err("the name is taken");
    add(3, "b").await.expect("kept");
    let entries = check(&*log(database, Stream::Users), 2).await;
    assert_eq!(value(&entries[1], "number"), "3");
}

pub(crate) async fn marks_of_the_relay_are_remembered(database: &Database) {
    let log = log(database, Stream::Things);
    let events = (0..20).map(|number| event(Stream::Things, number));
    database
        .record_events(events.collect())
        .await
        .expect("kept");
    assert_eq!((log.last(), log.relayed()), (20, 0));
    log.set_relayed(12).await.expect("marked");
    log.refresh().await.expect("read");
    assert_eq!((log.last(), log.relayed()), (20, 12));
    let entries = log.read(12, 5).await.expect("read");
    let positions = entries.iter().map(|entry| entry.position);
    assert!(positions.eq(13..=17));
    // The stream was found to have lost some.
    log.set_relayed(3).await.expect("marked");
    assert_eq!(log.relayed(), 3);
}

pub(crate) async fn a_new_producer_is_the_same_for_all(database: &Database) {
    let log = log(database, Stream::Things);
    let before = log.producer();
    let after = log.renew_producer().await.expect("renewed");
    assert_ne!(before, after);
    assert_eq!(log.producer(), after);
    log.refresh().await.expect("read");
    assert_eq!(log.producer(), after);
}

pub(crate) async fn more_callers_than_can_wait_are_all_heard(database: &Database) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..3_000 {
        let database = database.clone();
        tasks.spawn(async move {
            let recorded = database.record_events(vec![event(Stream::Users, number)]);
            recorded.await.expect("kept");
        });
    }
    tasks.join_all().await;
    let entries = check(&*log(database, Stream::Users), 3_000).await;
    let mut numbers: Vec<&str> = entries.iter().map(|it| value(it, "number")).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 3_000);
    // After it was closed, nobody waits for ever.
    database.close().await;
    let late = database.record_events(vec![event(Stream::Users, 0)]);
    late.await.expect_err("closed");
}
