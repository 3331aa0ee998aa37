//! What has gathered in the journal while Redis was away goes out whole, once and in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rollcall_domain::identity::{SessionId, ThingId, Timestamp};
use rollcall_domain::presence::{
    Change, Farewell, Peer, Presence, PresenceLog, Protocol, Roll, Session,
};
use rollcall_storage::journal::{Config, Durability, Journal, WhenFull};

use crate::redis_server::RedisServer;
use crate::world::{World, wait_for};

const STREAM: &str = "mainflux.mqtt";
const SESSIONS: u64 = 50_000;
/// How many are online at one time.
const ONLINE: u64 = 300;

/// Session by session: the first come, then one leaves as another comes, then the last leave.
fn script() -> impl Iterator<Item = (u64, bool)> {
    let turns = (ONLINE..SESSIONS).flat_map(|n| [(n - ONLINE, false), (n, true)]);
    let last = (SESSIONS - ONLINE..SESSIONS).map(|n| (n, false));
    (0..ONLINE).map(|n| (n, true)).chain(turns).chain(last)
}

fn thing(number: u64) -> ThingId {
    ThingId::from_bytes(u128::from(number).to_be_bytes())
}

/// Makes the journal of a server that does not run.
fn fill(world: &World) {
    let config = Config {
        max_bytes: "1GiB".parse().expect("a size"),
        durability: Durability::Process,
        commit_interval: Duration::ZERO,
        when_full: WhenFull::Refuse,
    };
    let data = world.folder().join("data");
    std::fs::create_dir(&data).expect("made");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let path = data.join("presence.db");
        let opened = Journal::open(&path, &config, "front-1", false).await;
        let journal = opened.expect("opens");
        let mut here = VecDeque::new();
        let mut script = script();
        // Of all sizes, as quiet times and storms make them.
        for size in [1, 9, 80, 700, 2_000].into_iter().cycle() {
            let change = |(number, arrives)| {
                let (session, change) = if arrives {
                    let session = Arc::new(Session {
                        id: SessionId::generate(),
                        thing: thing(number),
                        client_id: number.to_string().into(),
                        protocol: Protocol::Mqtt311,
                        peer: Peer::Unix,
                    });
                    here.push_back(Arc::clone(&session));
                    (session, Change::Arrived)
                } else {
                    let session = here.pop_front().expect("it has arrived");
                    (session, Change::Left(Farewell::Disconnected))
                };
                let at = Timestamp::now();
                Presence {
                    session,
                    change,
                    at,
                }
            };
            let batch: Vec<Presence> = script.by_ref().take(size).map(change).collect();
            if batch.is_empty() {
                break;
            }
            journal.append(batch, Box::new(|_| {}));
            journal.flush().await;
        }
        assert!(journal.is_empty());
        journal.close().await;
    });
}

/// Waits until the stream has so many entries, as long as there is any progress.
fn await_entries(redis: &RedisServer, count: usize) {
    let mut known = redis.len(STREAM);
    while known < count {
        known = wait_for("progress", || {
            Some(redis.len(STREAM)).filter(|now| *now > known)
        });
    }
}

#[test]
fn a_backlog_goes_out_once_and_in_order_whoever_is_killed_meanwhile() {
    let mut redis = RedisServer::with(&["--appendfsync", "everysec"]);
    redis.kill();
    let mut world = World::prepared(&[("ROLLCALL_REDIS__RETRY_MAX", "100ms")]);
    world.set("ROLLCALL_REDIS__URL", &redis.url());
    world.set("ROLLCALL_LOG__FILTER", "info");
    fill(&world);
    world.run();
    redis.run();
    await_entries(&redis, 5_000);
    world.crash_and_restart();
    await_entries(&redis, 20_000);
    redis.kill();
    redis.run();
    await_entries(&redis, 40_000);
    redis.command::<u64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    await_entries(&redis, 2 * SESSIONS as usize);

    let mut expected = script();
    let (mut start, mut at) = ("-".to_owned(), 0);
    loop {
        type Entry = (String, Vec<(String, String)>);
        let range = ["XRANGE", STREAM, &start, "+", "COUNT", "5000"];
        let page: Vec<Entry> = redis.command(&range);
        let Some(last) = page.last() else { break };
        start = format!("({}", last.0);
        for (id, fields) in &page {
            let (number, arrives) = expected.next().expect("no more than there were");
            let kind = if arrives { "connect" } else { "disconnect" };
            assert_eq!(fields[0].1, thing(number).to_string(), "{id}");
            assert_eq!(fields[1].1, kind, "{id}");
            let occurred: u64 = fields[3].1.parse().expect("nanoseconds");
            assert!(occurred > at, "{id}");
            at = occurred;
        }
    }
    assert_eq!(expected.next(), None);
    assert!(redis.roll("front-1").is_empty());
}
