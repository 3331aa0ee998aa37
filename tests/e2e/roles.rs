//! Parts of rollcall that run alone, and ask each other.

use std::process::Command;

use crate::client::Hello;
use crate::world::World;

#[test]
fn a_front_alone_has_no_service_and_asks_the_one_elsewhere() {
    let whole = World::start();
    let (thing, channel) = whole.member();
    let authority = format!("http://{}", whole.grpc());
    let front = World::alone("mqtt", &[("ROLLCALL_THINGS__AUTHORITY", &authority)]);
    assert!(!front.ready().contains("http."), "{}", front.ready());
    let mut client = front.client(Hello::of(&thing, "c"));
    let topic = format!("channels/{channel}/messages");
    assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);
    assert_eq!(front.wait_events(1)[0]["thing_id"], thing.id);
    assert!(whole.events().is_empty());
    assert_eq!(front.json(&["presence"])["total"], 1);
    let problem = front.fail(&["things", "list"]);
    assert!(!problem.is_empty());
    let problem = front.fail(&["events", "--stream", "things"]);
    assert!(problem.contains("no such stream"), "{problem}");
    assert!(!front.folder().join("data/rollcall.db").exists());
}

#[test]
fn a_part_that_is_not_told_whom_to_ask_does_not_start() {
    for (role, key) in [
        ("mqtt", "things.authority"),
        ("things", "users.authority"),
        ("bootstrap", "users.authority"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let output = Command::new(env!("CARGO_BIN_EXE_rollcall"))
            .args([role, "--data"])
            .arg(folder.path())
            .output()
            .expect("runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(key), "{error}");
    }
}
