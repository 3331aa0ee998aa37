//! What stores of configurations promise of entries that are heard.

use rollcall_domain::bootstrap::{Change, ConfigStore, Effect, Heard, KeptConfig, State};
use rollcall_domain::identity::Timestamp;
use rollcall_domain::listing::Page;

use crate::bootstrap::{Announced, add, change, channel, config, copy, hex, lines, read, thing};

async fn hear(store: &dyn ConfigStore, after: Option<&str>, id: &str, effect: Effect) -> bool {
    let heard = Heard {
        source: "things".into(),
        after: after.map(str::to_owned),
        id: id.into(),
        effect,
    };
    store.hear(&heard).await.expect("asked")
}

pub(crate) async fn an_entry_is_heard_once_and_in_turn(store: &dyn ConfigStore) {
    assert_eq!(store.heard_last("things").await.expect("read"), None);
    assert!(hear(store, None, "1-0", Effect::Nothing).await);
    assert!(!hear(store, None, "1-0", Effect::Nothing).await);
    assert!(hear(store, Some("1-0"), "2-0", Effect::Nothing).await);
    assert!(!hear(store, Some("1-0"), "2-0", Effect::Nothing).await);
    let last = store.heard_last("things").await.expect("read");
    assert_eq!(last.as_deref(), Some("2-0"));
    assert_eq!(store.heard_last("others").await.expect("read"), None);
    let aside = Effect::SetAside {
        reason: "nonsense".into(),
        fields: vec![("a".into(), "b".into())],
    };
    assert!(hear(store, Some("2-0"), "3-0", aside).await);
}

pub(crate) async fn what_is_heard_changes_what_is_older(store: &dyn ConfigStore) {
    let kept = |number| KeptConfig {
        state: State::Active,
        ..config(number, &[copy(1, "one", 5), copy(2, "two", 5)])
    };
    add(store, &kept(10)).await;
    add(store, &kept(20)).await;
    let mut last = None;
    let mut next = 0;
    let mut say = async |effect| {
        next += 1;
        let id = next.to_string();
        assert!(hear(store, last.as_deref(), &id, effect).await);
        last = Some(id);
    };
    say(Effect::UpdateChannel(copy(1, "older", 4))).await;
    assert_eq!(read(store, 10).await.channels[0].name, "one");
    say(Effect::UpdateChannel(copy(1, "newer", 6))).await;
    assert_eq!(read(store, 20).await.channels[0].name, "newer");
    say(Effect::UpdateChannel(copy(9, "nobody's", 6))).await;
    let cut = |number, channel_number, at| Effect::Deactivate {
        thing: thing(number),
        channel: channel(channel_number),
        at: Timestamp(at),
    };
    say(cut(10, 1, 9)).await;
    say(cut(10, 9, 90)).await;
    say(cut(11, 1, 90)).await;
    assert_eq!(read(store, 10).await.state, State::Active);
    say(cut(10, 1, 10)).await;
    let found = read(store, 10).await;
    assert_eq!((found.state, found.revision), (State::Inactive, 2));
    // To disconnect a channel does not make it younger.
    let inactive = Change::State {
        state: State::Inactive,
        since: Timestamp(1_000),
    };
    assert!(change(store, 10, 2, inactive).await);
    assert_eq!(read(store, 20).await.state, State::Active);
    say(Effect::RemoveChannel {
        channel: channel(2),
        at: Timestamp(15),
    })
    .await;
    assert_eq!(read(store, 10).await.channels.len(), 1);
    assert_eq!(read(store, 20).await.channels.len(), 2);
    for (number, at) in [(20, 19), (10, 10)] {
        say(Effect::RemoveConfig {
            thing: thing(number),
            at: Timestamp(at),
        })
        .await;
    }
    assert!(store.config(thing(10)).await.expect("read").is_none());
    assert_eq!(read(store, 20).await.channels.len(), 2);
}

pub(crate) async fn what_was_set_aside_is_listed_and_taken_up_once(store: &dyn ConfigStore) {
    add(store, &config(10, &[])).await;
    let fields = vec![("a".into(), "b".into()), ("".into(), "\0\u{1b}é".into())];
    let mut last = None;
    for id in ["1-0", "2-0", "3-0"] {
        let aside = Effect::SetAside {
            reason: format!("reason of {id}"),
            fields: fields.clone(),
        };
        assert!(hear(store, last, id, aside).await);
        last = Some(id);
    }
    let ids = async |offset, limit| {
        let listed = store.set_aside(Page { offset, limit }).await.expect("read");
        let ids: Vec<String> = listed.items.into_iter().map(|it| it.id).collect();
        (ids.join(" "), listed.total)
    };
    assert_eq!(ids(0, 10).await, ("1-0 2-0 3-0".to_owned(), 3));
    assert_eq!(ids(1, 1).await, ("2-0".to_owned(), 3));
    let found = store.set_aside_as("2-0").await.expect("read");
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&*found[0].source, &*found[0].reason),
        ("things", "reason of 2-0")
    );
    assert_eq!(found[0].fields, fields);
    assert!(store.set_aside_as("4-0").await.expect("read").is_empty());

    let up = |source: &str, effect| Heard {
        source: source.into(),
        after: None,
        id: "2-0".into(),
        effect,
    };
    let remove = || Effect::RemoveConfig {
        thing: thing(10),
        at: Timestamp(10),
    };
    let elsewhere = store.take_up(&up("others", remove())).await;
    assert!(!elsewhere.expect("asked"));
    assert!(store.config(thing(10)).await.expect("read").is_some());
    assert!(store.take_up(&up("things", remove())).await.expect("asked"));
    assert!(store.config(thing(10)).await.expect("read").is_none());
    let again = store.take_up(&up("things", Effect::Nothing)).await;
    assert!(!again.expect("asked"));
    assert_eq!(ids(0, 10).await, ("1-0 3-0".to_owned(), 2));
    let heard = store.heard_last("things").await.expect("read");
    assert_eq!(heard.as_deref(), Some("3-0"));
}

/// Twenty times, so that they meet in every way.
pub(crate) async fn what_comes_at_one_time_is_as_if_one_came_after_the_other(
    store: &dyn ConfigStore,
) {
    let mut last: Option<String> = None;
    for number in 1..=20 {
        let kept = KeptConfig {
            state: State::Active,
            ..config(number, &[copy(1, "one", 5), copy(2, "two", 5)])
        };
        add(store, &kept).await;
        // The thing is disconnected from a channel that its configuration loses.
        let without_one = Change::Channels {
            channels: vec![copy(2, "two", 5)],
            since: Timestamp(90),
        };
        let cut = Effect::Deactivate {
            thing: thing(number),
            channel: channel(1),
            at: Timestamp(100),
        };
        let id = number.to_string();
        let (changed, heard) = tokio::join!(
            change(store, number, 1, without_one),
            hear(store, last.as_deref(), &id, cut)
        );
        assert!(heard);
        last = Some(id);
        let state = read(store, number).await.state;
        assert_eq!(changed, state == State::Active, "{number}");
    }
    for number in 1..=20 {
        // The last two that have a channel go: nobody has it then, and the next copy counts.
        let (one, two) = (100 + 2 * number, 101 + 2 * number);
        let shared = copy(50, "shared", 9);
        add(store, &config(one, std::slice::from_ref(&shared))).await;
        add(store, &config(two, std::slice::from_ref(&shared))).await;
        let (first, second) = tokio::join!(
            change(store, one, 1, Change::Remove),
            change(store, two, 1, Change::Remove)
        );
        assert!(first && second);
        add(store, &config(one, &[copy(50, "anew", 8)])).await;
        let found = read(store, one).await.channels;
        assert_eq!(found[0].name, "anew", "{number}");
        assert!(change(store, one, 1, Change::Remove).await);
    }
}

pub(crate) async fn what_is_heard_is_announced_if_it_changes_something(store: &impl Announced) {
    let kept = |number| KeptConfig {
        state: State::Active,
        ..config(number, &[copy(1, "one", 5), copy(2, "two", 5)])
    };
    add(store, &kept(10)).await;
    add(store, &kept(20)).await;
    let (one, two, ten, twenty) = (hex(1), hex(2), hex(10), hex(20));
    let cut = |number, at| Effect::Deactivate {
        thing: thing(number),
        channel: channel(1),
        at: Timestamp(at),
    };
    let shut = |number, at| Effect::RemoveChannel {
        channel: channel(number),
        at: Timestamp(at),
    };
    let remove = |number, at| Effect::RemoveConfig {
        thing: thing(number),
        at: Timestamp(at),
    };
    let nothing: Vec<String> = Vec::new();
    let steps = [
        (Effect::Nothing, nothing.clone()),
        (Effect::UpdateChannel(copy(1, "older", 4)), nothing.clone()),
        (
            Effect::UpdateChannel(copy(9, "nobody's", 9)),
            nothing.clone(),
        ),
        (
            Effect::UpdateChannel(copy(1, "newer", 6)),
            vec![format!(
                "channel.update_handler channel_id={one} name=newer metadata={{\"a\":{{\"b\":[1]}}}}"
            )],
        ),
        // Before it was activated, of another's, twice.
        (cut(10, 9), nothing.clone()),
        (cut(11, 90), nothing.clone()),
        (
            cut(10, 90),
            vec![format!("thing.disconnect thing_id={ten} channel_id={one}")],
        ),
        (cut(10, 91), nothing.clone()),
        // One for each that loses it.
        (shut(9, 90), nothing.clone()),
        (
            shut(2, 90),
            vec![
                format!("config.remove_handler config_id={ten} channel_id={two}"),
                format!("config.remove_handler config_id={twenty} channel_id={two}"),
            ],
        ),
        (shut(2, 91), nothing.clone()),
        (remove(20, 19), nothing.clone()),
        (remove(11, 90), nothing.clone()),
        (
            remove(20, 90),
            vec![format!("config.remove_handler config_id={twenty}")],
        ),
        (remove(20, 91), nothing.clone()),
        (
            Effect::SetAside {
                reason: "nonsense".into(),
                fields: Vec::new(),
            },
            nothing,
        ),
    ];
    let mut last = None;
    let mut announced = 0;
    for (number, (effect, due)) in steps.into_iter().enumerate() {
        let id = number.to_string();
        assert!(hear(store, last.as_deref(), &id, effect.clone()).await);
        let told = lines(store).await;
        assert_eq!(told[announced..], due, "{effect:?}");
        announced = told.len();
        // Heard again, as after a crash before it was acknowledged.
        assert!(!hear(store, last.as_deref(), &id, effect).await);
        assert_eq!(lines(store).await.len(), announced);
        last = Some(id);
    }
}
