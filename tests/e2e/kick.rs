//! Sessions that an administrator ends.

use crate::client::{Client, Hello};
use crate::world::{World, wait_for};

/// The id of the session of this client, as `rollcall presence` shows it.
fn session_of(world: &World, client_id: &str) -> String {
    let listing = world.json(&["presence"]);
    let sessions = listing["sessions"].as_array().expect("a list");
    let session = sessions.iter().find(|it| it["client_id"] == client_id);
    let id = session.expect("online")["session_id"].as_str();
    id.expect("text").to_owned()
}

#[test]
fn a_thing_is_kicked_and_a_session_alone() {
    let world = World::with(&[("ROLLCALL_EVENTS__EXTENDED", "true")]);
    let (lamp, other) = (world.thing("lamp"), world.thing("other"));
    let mut first = world.client(Hello::of(&lamp, "first").five());
    let mut second = world.client(Hello::of(&lamp, "second"));
    let mut bystander = world.client(Hello::of(&other, "bystander").five());

    let id = session_of(&world, "first");
    assert!(world.tell(&["presence"]).contains(&id), "shown to people");
    let told = world.json(&["kick", &id, "--reason", "come back tomorrow"]);
    assert_eq!(told["ended"], 1);
    let goodbye = first.receive();
    assert_eq!((goodbye.first, goodbye.body[0]), (0xE0, 0x98));
    assert_eq!(goodbye.body[5..], *b"come back tomorrow", "{goodbye:?}");
    first.expect_end();
    second.expect_silence();
    assert!(world.fail(&["kick", &id]).contains("no such session"));

    let mut third = world.client(Hello::of(&lamp, "third").five());
    assert_eq!(world.json(&["kick", &lamp.id])["ended"], 2);
    second.expect_disconnect(0x98);
    third.expect_disconnect(0x98);
    bystander.expect_silence();

    let events = world.wait_events(7);
    let kicked = events.iter().filter(|event| {
        event.get("reason").map(String::as_str) == Some("kicked")
            && event["event_type"] == "disconnect"
            && event["thing_id"] == lamp.id
    });
    assert_eq!(kicked.count(), 3);
    // Nothing is held against it.
    world.client(Hello::of(&lamp, "first"));
}

#[test]
fn what_is_kept_for_a_session_stays_unless_it_is_to_be_forgotten() {
    let world = World::start();
    let (lamp, _) = world.member();
    let hello = || Hello::of(&lamp, "c").five().lasting();
    let mut client = world.client(hello());
    assert_eq!(world.json(&["kick", &lamp.id])["forgotten"], 0);
    client.expect_disconnect(0x98);
    let (mut client, connack) = Client::connect(world.mqtt(), hello());
    assert!(connack.present);

    let told = world.json(&["kick", &session_of(&world, "c"), "--forget"]);
    assert_eq!((&told["ended"], &told["forgotten"]), (&1.into(), &1.into()));
    client.expect_disconnect(0x98);
    let (client, connack) = Client::connect(world.mqtt(), hello());
    assert!(!connack.present);

    // Of a thing, absent sessions too.
    client.disconnect();
    wait_for("nobody", || {
        (world.json(&["presence"])["total"] == 0).then_some(())
    });
    let told = world.json(&["kick", &lamp.id, "--forget"]);
    assert_eq!((&told["ended"], &told["forgotten"]), (&0.into(), &1.into()));
    assert!(!Client::connect(world.mqtt(), hello()).1.present);
}

#[test]
fn a_kick_that_makes_no_sense_is_refused_in_words() {
    let world = World::start();
    let nobody = "76a58221-e319-492a-be3e-b3d15631e92a";
    for (arguments, told) in [
        (&["kick", nobody][..], "no such session is on front-1"),
        (&["kick", "lamp"], "session id must be"),
        (&["kick", nobody, "--reason", "two\nlines"], "a reason has"),
    ] {
        let error = world.fail(arguments);
        assert!(error.contains(told), "{arguments:?}: {error}");
    }
}
