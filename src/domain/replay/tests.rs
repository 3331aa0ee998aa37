use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::difference::What;
use super::*;

fn replay(partial: &[Stream], entries: &[(Stream, &[(&str, &str)])]) -> Replay {
    let mut replay = Replay::new(partial.to_vec());
    for (n, (stream, fields)) in entries.iter().enumerate() {
        replay.entry(*stream, &format!("{n}-0"), fields.iter().copied());
    }
    replay
}

fn row(replay: &Replay, kind: Kind, id: &str) -> Vec<String> {
    let row = replay.state().get(kind, id).expect("is there");
    row.iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(column, value)| format!("{column}={value}"))
        .collect()
}

const USERS: Stream = Stream::Users;
const THINGS: Stream = Stream::Things;
const BOOTSTRAP: Stream = Stream::Bootstrap;

#[test]
fn what_is_not_in_an_update_has_no_value_but_the_owner_stays() {
    let replay = replay(
        &[],
        &[
            (
                USERS,
                &[
                    ("operation", "user.create"),
                    ("id", "u"),
                    ("name", "n"),
                    ("tags", "[a,b]"),
                    ("owner", "o"),
                    ("metadata", "{\"a\":1}"),
                    ("status", "enabled"),
                    ("created_at", "c"),
                ],
            ),
            (
                USERS,
                &[
                    ("operation", "user.update_tags"),
                    ("id", "u"),
                    ("updated_at", "1"),
                    ("updated_by", "v"),
                    ("status", "enabled"),
                    ("created_at", "c"),
                ],
            ),
            (
                USERS,
                &[
                    ("operation", "user.remove"),
                    ("id", "u"),
                    ("status", "disabled"),
                    ("updated_at", "2"),
                    ("updated_by", "w"),
                ],
            ),
            (USERS, &[("operation", "user.view"), ("id", "x")]),
        ],
    );
    let expected = [
        "created_at=c",
        "metadata={}",
        "owner=o",
        "status=disabled",
        "updated_at=2",
        "updated_by=w",
    ];
    assert_eq!(row(&replay, Kind::User, "u"), expected);
    assert_eq!((replay.misfit_count(), replay.unknown().count()), (0, 0));
}

#[test]
fn the_words_of_mainflux_are_understood() {
    let replay = replay(
        &[],
        &[
            // Its users service says little of policies, and nothing of new owners.
            (
                USERS,
                &[
                    ("operation", "policies.add"),
                    ("subject", "s"),
                    ("object", "o"),
                    ("actions", "[g_add]"),
                ],
            ),
            (
                USERS,
                &[("operation", "user.create"), ("id", "u"), ("owner", "o")],
            ),
            (USERS, &[("operation", "user.update_owner"), ("id", "u")]),
            (
                USERS,
                &[
                    ("operation", "user.remove"),
                    ("id", "u"),
                    ("updated_at", "0001-01-01T00:00:00Z"),
                ],
            ),
            (
                BOOTSTRAP,
                &[
                    ("operation", "config.create"),
                    ("thing_id", "t"),
                    ("channels", "[b, a]"),
                    ("state", "0"),
                ],
            ),
            (
                BOOTSTRAP,
                &[
                    ("operation", "thing.change_state"),
                    ("thing_id", "t"),
                    ("state", "1"),
                ],
            ),
            (
                BOOTSTRAP,
                &[
                    ("operation", "thing.update_connections"),
                    ("thing_id", "t"),
                    ("channels", "[c, a]"),
                ],
            ),
            (
                BOOTSTRAP,
                &[("operation", "channel.remove_handler"), ("config_id", "c")],
            ),
            (
                BOOTSTRAP,
                &[("operation", "config.remove_handler"), ("config_id", "")],
            ),
        ],
    );
    assert_eq!(row(&replay, Kind::UserPolicy, "s o"), ["actions=[g_add]"]);
    let user = replay.state().get(Kind::User, "u").expect("is there");
    assert_eq!(user.get("owner"), None, "not known");
    assert_eq!(user["updated_at"], "");
    assert_eq!(row(&replay, Kind::Config, "t"), ["channels=a", "state=1"]);
    let copies: Vec<_> = replay.state().rows(Kind::ChannelCopy).collect();
    assert_eq!(copies, [("a", &Row::new())]);
    assert_eq!((replay.misfit_count(), replay.unknown().count()), (0, 0));
}

#[test]
fn what_does_not_fit_is_named_and_what_is_not_understood_is_counted() {
    let create: &[(&str, &str)] = &[("operation", "thing.create"), ("id", "t")];
    let replay = replay(
        &[],
        &[
            (THINGS, create),
            (THINGS, create),
            (THINGS, &[("operation", "channel.update"), ("id", "c")]),
            (THINGS, &[("operation", "thing.remove")]),
            (THINGS, &[("operation", "thing.fly"), ("id", "t")]),
            (THINGS, &[("operation", "user.create"), ("id", "t")]),
            (THINGS, &[]),
            (
                BOOTSTRAP,
                &[("operation", "cert.update"), ("thing_key", "t")],
            ),
        ],
    );
    let misfits: Vec<String> = replay
        .misfits()
        .iter()
        .map(|it| format!("{} {}", it.id, it.what))
        .collect();
    let expected = [
        "1-0 thing.create: t is made twice",
        "2-0 channel.update: c was never made",
        "3-0 thing.remove: there is no id",
        "6-0 : there is no such operation",
        "7-0 cert.update: t was never made",
    ];
    assert_eq!(misfits, expected);
    let unknown: Vec<_> = replay.unknown().collect();
    assert_eq!(
        unknown,
        [("things thing.fly", 1), ("things user.create", 1)]
    );
}

#[test]
fn entries_that_are_not_later_are_counted() {
    let at = |at| [("operation", "thing.list"), ("occurred_at", at)];
    let mut replay = Replay::default();
    for (stream, time) in [
        (THINGS, "2"),
        (USERS, "1"),
        (THINGS, "2"),
        (THINGS, "1"),
        (THINGS, "3"),
    ] {
        replay.entry(stream, "", at(time).into_iter());
    }
    assert_eq!(replay.late(), 2);
    assert_eq!(replay.entries(THINGS), 4);
}

/// A stream without its beginning tells less, and nothing wrong.
#[test]
fn a_stream_that_lost_its_beginning_is_compared_as_far_as_it_tells() {
    let entries: &[(Stream, &[(&str, &str)])] = &[
        (
            THINGS,
            &[
                ("operation", "thing.remove"),
                ("id", "t"),
                ("status", "disabled"),
                ("updated_at", "1"),
                ("updated_by", "u"),
            ],
        ),
        (
            THINGS,
            &[
                ("operation", "policies.delete"),
                ("subject", "t"),
                ("object", "c"),
            ],
        ),
    ];
    let database = |status: &str| {
        let mut state = State::default();
        let columns = Kind::Thing.columns().iter();
        let mut row: Row = columns.map(|it| (*it, (*it).to_owned())).collect();
        row.extend([
            ("status", status.to_owned()),
            ("updated_at", "1".to_owned()),
            ("updated_by", "u".to_owned()),
        ]);
        state.insert(Kind::Thing, "t".to_owned(), row.clone());
        state.insert(Kind::Thing, "t2".to_owned(), row);
        state
    };
    let partial = replay(&[THINGS], entries);
    assert_eq!(partial.misfit_count(), 0);
    let same = partial.compare(&database("disabled"));
    assert_eq!((same.differences, same.untold), (vec![], 1));
    let other = partial.compare(&database("enabled"));
    assert_eq!(other.differences.len(), 1, "{:?}", other.differences);

    let whole = replay(&[], entries);
    assert_eq!(whole.misfit_count(), 1, "it was never made");
    let missing = whole.compare(&database("disabled"));
    assert_eq!(missing.differences.len(), 2, "{:?}", missing.differences);
    assert_eq!(missing.untold, 0);
}

#[test]
fn a_difference_says_who_says_what() {
    let replay = replay(
        &[],
        &[
            (
                THINGS,
                &[("operation", "thing.create"), ("id", "a"), ("name", "x")],
            ),
            (THINGS, &[("operation", "thing.create"), ("id", "b")]),
        ],
    );
    let mut database = State::default();
    let named = |name: &str| Row::from([("name", name.to_owned())]);
    database.insert(Kind::Thing, "a".to_owned(), named("y"));
    database.insert(Kind::Channel, "c".to_owned(), named(""));
    let told: Vec<String> = replay
        .compare(&database)
        .differences
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = [
        "things a: name is \"x\" in the streams, \"y\" in the database",
        "things b: in the streams, not in the database",
        "channels c: in the database, not in the streams",
    ];
    assert_eq!(told, expected);
}

#[test]
fn bootstrap_follows_channels_as_long_as_a_configuration_has_them() {
    let mut replay = Replay::default();
    let mut tell = |fields: &[(&str, &str)]| replay.entry(BOOTSTRAP, "", fields.iter().copied());
    for (thing, channels) in [("t1", "[a, b]"), ("t2", "[b, c]"), ("t3", "[d]")] {
        tell(&[
            ("operation", "config.create"),
            ("thing_id", thing),
            ("channels", channels),
        ]);
    }
    for channel in ["a", "b", "nobody's"] {
        tell(&[
            ("operation", "channel.update_handler"),
            ("channel_id", channel),
            ("name", "new"),
        ]);
    }
    tell(&[
        ("operation", "config.remove_handler"),
        ("config_id", "t1"),
        ("channel_id", "b"),
    ]);
    tell(&[("operation", "config.remove_handler"), ("config_id", "t3")]);
    tell(&[
        ("operation", "thing.update_connections"),
        ("thing_id", "t2"),
        ("channels", "b, e"),
    ]);
    tell(&[
        ("operation", "thing.state_change"),
        ("thing_id", "t2"),
        ("state", "1"),
    ]);
    tell(&[
        ("operation", "thing.disconnect"),
        ("thing_id", "t2"),
        ("channel_id", "b"),
    ]);
    let copies: Vec<&str> = replay
        .state()
        .rows(Kind::ChannelCopy)
        .map(|it| it.0)
        .collect();
    assert_eq!(copies, ["a", "b", "e"]);
    let b = replay.state().get(Kind::ChannelCopy, "b").expect("a copy");
    assert_eq!(b["name"], "new");
    let channels = |id| {
        replay
            .state()
            .get(Kind::Config, id)
            .map(|it| &*it["channels"])
    };
    assert_eq!(channels("t1"), Some("a"));
    assert_eq!(channels("t2"), Some("b, e"));
    assert_eq!(channels("t3"), None);
    assert_eq!(
        row(&replay, Kind::Config, "t2"),
        ["channels=b, e", "state=0"]
    );
    assert_eq!(replay.misfit_count(), 0);
}

/// What somebody does to a small world.
#[derive(Clone, Debug)]
enum Deed {
    Make(usize, String),
    Rename(usize, String),
    Tag(usize, Vec<String>),
    Give(usize, u8),
    Toggle(usize),
    Allow(usize, usize, bool),
    Forbid(usize, usize),
    Look(usize),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let who = 0_usize..5;
    let word = "[a-z,]{0,3}";
    let deed = prop_oneof![
        (who.clone(), word).prop_map(|(n, name)| Deed::Make(n, name)),
        (who.clone(), word).prop_map(|(n, name)| Deed::Rename(n, name)),
        (who.clone(), vec(word, 0..3)).prop_map(|(n, tags)| Deed::Tag(n, tags)),
        (who.clone(), 0_u8..3).prop_map(|(n, owner)| Deed::Give(n, owner)),
        who.clone().prop_map(Deed::Toggle),
        (who.clone(), who.clone(), any::<bool>()).prop_map(|(s, o, w)| Deed::Allow(s, o, w)),
        (who.clone(), who.clone()).prop_map(|(s, o)| Deed::Forbid(s, o)),
        who.prop_map(Deed::Look),
    ];
    vec(deed, 0..60)
}

#[derive(Clone, Default)]
struct Thing {
    name: String,
    tags: Vec<String>,
    owner: u8,
    disabled: bool,
    updated: Option<usize>,
}

/// A service that keeps things and policies, and tells of them.
#[derive(Default)]
struct World {
    things: BTreeMap<usize, Thing>,
    policies: BTreeMap<(usize, usize), (bool, Option<usize>)>,
    events: Vec<Vec<(&'static str, String)>>,
}

impl World {
    fn tell(&mut self, operation: &'static str, n: usize) {
        let thing = self.things[&n].clone();
        let mut fields = vec![
            ("operation", operation.to_owned()),
            ("id", format!("t{n}")),
            ("status", status(&thing)),
        ];
        if operation != "thing.remove" {
            fields.extend([
                ("name", thing.name.clone()),
                ("tags", tags(&thing)),
                ("owner", thing.owner.to_string()),
                ("metadata", "{}".to_owned()),
                ("created_at", "c".to_owned()),
            ]);
        }
        if let Some(updated) = thing.updated {
            fields.push(("updated_at", updated.to_string()));
            fields.push(("updated_by", format!("u{updated}")));
        }
        fields.retain(|(_, value)| !value.is_empty());
        self.events.push(fields);
    }

    fn policy(&mut self, operation: &'static str, pair: (usize, usize)) {
        let mut fields = vec![
            ("operation", operation.to_owned()),
            ("subject", format!("t{}", pair.0)),
            ("object", format!("c{}", pair.1)),
        ];
        if let Some((write, updated)) = self.policies.get(&pair) {
            fields.push(("owner_id", "o".to_owned()));
            fields.push(("actions", actions(*write)));
            fields.push(("created_at", "c".to_owned()));
            if let Some(updated) = updated {
                fields.push(("updated_at", updated.to_string()));
                fields.push(("updated_by", format!("u{updated}")));
            }
        }
        self.events.push(fields);
    }

    fn change(&mut self, at: usize, deed: Deed) {
        let (n, operation) = match &deed {
            Deed::Make(n, name) => {
                if !self.things.contains_key(n) {
                    let name = name.clone();
                    let thing = Thing {
                        name,
                        ..Thing::default()
                    };
                    self.things.insert(*n, thing);
                    self.tell("thing.create", *n);
                }
                return;
            }
            Deed::Allow(subject, object, write) => {
                let pair = (*subject, *object);
                let updated = self.policies.contains_key(&pair).then_some(at);
                self.policies.insert(pair, (*write, updated));
                return self.policy("policies.add", pair);
            }
            Deed::Forbid(subject, object) => {
                self.policies.remove(&(*subject, *object));
                return self.policy("policies.delete", (*subject, *object));
            }
            Deed::Rename(n, _) => (*n, "thing.update"),
            Deed::Tag(n, _) => (*n, "thing.update_tags"),
            Deed::Give(n, _) => (*n, "thing.update_owner"),
            Deed::Toggle(n) => (*n, "thing.remove"),
            Deed::Look(n) => (*n, "thing.view"),
        };
        let Some(thing) = self.things.get_mut(&n) else {
            return;
        };
        match deed {
            Deed::Rename(_, name) => thing.name = name,
            Deed::Tag(_, tags) => thing.tags = tags,
            Deed::Give(_, owner) => thing.owner = owner,
            Deed::Toggle(_) => thing.disabled = !thing.disabled,
            _ => return self.tell(operation, n),
        }
        thing.updated = Some(at);
        self.tell(operation, n);
    }

    /// As a database would have it.
    fn state(&self) -> State {
        let updated = |updated: Option<usize>| {
            let by = updated.map(|it| format!("u{it}")).unwrap_or_default();
            let at = updated.map(|it| it.to_string()).unwrap_or_default();
            [("updated_at", at), ("updated_by", by)]
        };
        let mut state = State::default();
        for (n, thing) in &self.things {
            let mut row = Row::from([
                ("name", thing.name.clone()),
                ("tags", tags(thing)),
                ("owner", thing.owner.to_string()),
                ("identity", String::new()),
                ("metadata", "{}".to_owned()),
                ("status", status(thing)),
                ("created_at", "c".to_owned()),
            ]);
            row.extend(updated(thing.updated));
            state.insert(Kind::Thing, format!("t{n}"), row);
        }
        for ((subject, object), (write, at)) in &self.policies {
            let mut row = Row::from([
                ("owner_id", "o".to_owned()),
                ("actions", actions(*write)),
                ("created_at", "c".to_owned()),
            ]);
            row.extend(updated(*at));
            let id = pair(&format!("t{subject}"), &format!("c{object}"));
            state.insert(Kind::ThingPolicy, id, row);
        }
        state
    }
}

fn status(thing: &Thing) -> String {
    if thing.disabled {
        "disabled"
    } else {
        "enabled"
    }
    .to_owned()
}

fn tags(thing: &Thing) -> String {
    match thing.tags.as_slice() {
        [] => String::new(),
        tags => crate::event::list(tags),
    }
}

fn actions(write: bool) -> String {
    if write { "[m_write]" } else { "[m_read]" }.to_owned()
}

proptest! {
    #[test]
    fn what_a_service_tells_adds_up_to_what_it_keeps(deeds in deeds(), lost in 0_usize..20) {
        let mut world = World::default();
        for (at, deed) in deeds.into_iter().enumerate() {
            world.change(at, deed);
        }
        let kept = world.state();
        let mut whole = Replay::default();
        for fields in &world.events {
            let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
            whole.entry(THINGS, "", fields);
        }
        prop_assert_eq!(whole.misfits(), &[]);
        for kind in [Kind::Thing, Kind::ThingPolicy] {
            let told: Vec<_> = whole.state().rows(kind).collect();
            prop_assert_eq!(told, kept.rows(kind).collect::<Vec<_>>());
        }
        prop_assert_eq!(whole.compare(&kept).differences, vec![]);

        // Without its beginning it says less, nothing else.
        let mut rest = Replay::new(vec![THINGS]);
        for fields in world.events.iter().skip(lost) {
            let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
            rest.entry(THINGS, "", fields);
        }
        prop_assert_eq!(rest.misfits(), &[]);
        prop_assert_eq!(rest.compare(&kept).differences, vec![]);

        // And a change that nobody told of is found.
        let mut changed = world.state();
        if let Some((n, _)) = world.things.first_key_value() {
            let id = format!("t{n}");
            let mut row = changed.get(Kind::Thing, &id).expect("there").clone();
            row.insert("name", "changed".to_owned());
            changed.insert(Kind::Thing, id, row);
            let found = whole.compare(&changed).differences;
            prop_assert_eq!(found.len(), 1);
            let is_name = matches!(found[0].what, What::Value { column: "name", .. });
            prop_assert!(is_name);
        }
    }
}
