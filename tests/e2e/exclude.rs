//! Operations that are not told of.

use crate::redis_server::RedisServer;
use crate::world::{World, wait_for};

#[test]
fn excluded_operations_are_neither_in_the_log_nor_in_the_stream() {
    let redis = RedisServer::start();
    let world = World::with(&[
        ("ROLLCALL_REDIS__URL", &redis.url()),
        ("ROLLCALL_EVENTS__EXCLUDE", "*.list*,*.view"),
    ]);
    let first = world.thing("first");
    world.tell(&["things", "list"]);
    world.tell(&["things", "show", &first.id]);
    world.thing("second");
    let log = world.stream("things");
    let operations: Vec<&str> = log.iter().map(|it| &*it["operation"]).collect();
    assert_eq!(operations, ["thing.create", "thing.create"]);
    wait_for("the relay", || {
        (redis.len("mainflux.things") == 2).then_some(())
    });
    assert_eq!(redis.stream("mainflux.things"), log);
}

#[test]
fn a_wrong_pattern_stops_the_start_and_is_named() {
    let mut world = World::prepared(&[("ROLLCALL_EVENTS__EXCLUDE", "*.view, thing list")]);
    let output = world.up().output().expect("runs");
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(
        said.contains("events.exclude") && said.contains("thing list"),
        "{said}"
    );
    world.set("ROLLCALL_EVENTS__EXCLUDE", "*.view");
    world.run();
}
