//! Chaos: three instances, a Redis with a replica, PostgreSQL and a crowd of clients, to which everything happens that
//! happens to such systems, at random and several at a time. In the end nothing may be lost, doubled or invented,
//! by what clients, journals and a copy of the stream say.
//!
//! `tests/chaos/run --faults 500 --seed N` plays a long game. `CHAOS_SEED=N` has the short one play the
//! faults of that seed, as far as time lets itself be repeated.

#[allow(dead_code, reason = "shared with the tests that need more of it")]
#[path = "../e2e/client.rs"]
mod client;
mod crowd;
mod dice;
mod disk;
mod end;
mod faults;
mod game;
mod judge;
#[allow(dead_code, reason = "shared with the tests that need more of it")]
#[path = "../e2e/leaks.rs"]
mod leaks;
mod network;
mod plan;
#[path = "../../adapters/storage/tests/support/postgres_server.rs"]
mod postgres_server;
mod proxy;
#[allow(dead_code, reason = "shared with the tests that need more of it")]
#[path = "../e2e/redis_server.rs"]
mod redis_server;
mod report;
#[allow(dead_code, reason = "shared with the tests that need more of it")]
#[path = "../e2e/rest.rs"]
mod rest;
mod scribe;
mod slot;
mod store;
#[allow(dead_code, reason = "shared with the tests that need more of it")]
#[path = "../e2e/world.rs"]
mod world;

use game::Settings;

/// What the environment says, or `default`.
fn number(name: &str, default: u64) -> u64 {
    let said = std::env::var(format!("CHAOS_{name}"));
    said.map_or(default, |it| {
        it.parse()
            .unwrap_or_else(|_| panic!("CHAOS_{name}: {it} is no number"))
    })
}

#[test]
fn whatever_happens_every_session_has_one_connect_and_one_disconnect_in_order() {
    // Each client has three sockets here.
    let (_, most) = rlimit::Resource::NOFILE.get().expect("a limit");
    rlimit::Resource::NOFILE
        .set(most, most)
        .expect("what is allowed");
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("a clock");
    let findings = game::play(Settings {
        seed: number("SEED", now.as_nanos() as u64 % 1_000_000),
        faults: number("FAULTS", 25) as usize,
        clients: number("CLIENTS", 300) as usize,
    });
    assert!(findings.is_empty(), "{findings:#?}");
}
