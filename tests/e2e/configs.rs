//! Configurations and the connections of their things, whoever makes and cuts them.

use serde_json::Value;

use crate::world::{World, wait_for};

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// What the thing may do on the channel.
fn actions(world: &World, thing: &str, channel: &str) -> Value {
    let list = ["policies", "things", "list", "--subject", thing];
    let listed = world.json(&[&list[..], &["--channel", channel]].concat());
    listed["policies"][0]["actions"].clone()
}

#[test]
fn a_configuration_connects_what_is_missing_and_leaves_what_was_narrowed() {
    let world = World::start();
    let (narrow, cut) = (world.channel(), world.channel());
    let create = ["configs", "create", "ff-01", "--channel", &narrow];
    let made = world.json(&[&create[..], &["--channel", &cut]].concat());
    let thing = text(&made["thing_id"]);
    let state = || world.json(&["configs", "show", &thing])["state"].clone();
    world.tell(&["configs", "enable", &thing]);
    let both = actions(&world, &thing, &cut);
    assert_eq!(both.as_array().map(Vec::len), Some(2), "{both}");

    world.tell(&["connect", &thing, &narrow, "--actions", "m_read"]);
    let read = actions(&world, &thing, &narrow);
    assert_ne!(read, both);
    world.tell(&["configs", "enable", &thing]);
    assert_eq!(actions(&world, &thing, &narrow), read);

    // Cut elsewhere, it is inactive; the other one was not cut.
    world.tell(&["disconnect", &thing, &cut]);
    wait_for("it to be inactive", || (state() == 0).then_some(()));
    assert_eq!(actions(&world, &thing, &narrow), read);
    world.tell(&["configs", "enable", &thing]);
    assert_eq!(state(), 1);
    assert_eq!(actions(&world, &thing, &cut), both);
    assert_eq!(actions(&world, &thing, &narrow), read);

    // By way of inactive everything is as at first.
    world.tell(&["configs", "disable", &thing]);
    assert_eq!(actions(&world, &thing, &narrow), Value::Null);
    world.tell(&["configs", "enable", &thing]);
    assert_eq!(actions(&world, &thing, &narrow), both);
}

#[test]
fn a_channel_that_an_inactive_configuration_loses_is_not_left_connected() {
    let world = World::start();
    let (gone, kept) = (world.channel(), world.channel());
    let create = ["configs", "create", "ff-01", "--channel", &gone];
    let made = world.json(&[&create[..], &["--channel", &kept]].concat());
    let thing = text(&made["thing_id"]);
    for channel in [&gone, &kept] {
        world.tell(&["connect", &thing, channel]);
    }
    world.tell(&["configs", "connections", &thing, &kept]);
    assert_eq!(actions(&world, &thing, &gone), Value::Null);
    assert_ne!(actions(&world, &thing, &kept), Value::Null);
    assert_eq!(world.json(&["configs", "show", &thing])["state"], 0);
}
