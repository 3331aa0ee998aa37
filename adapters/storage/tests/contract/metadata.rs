//! Metadata that contains something is found, on each store.

use rollcall_domain::metadata::contains;
use rollcall_domain::things::{Scope, Thing, ThingChange, ThingFilter};

use crate::things::{ALL, Store, by, ids, keep, metadata, thing, told};

const HELD: &[&str] = &[
    r#"{}"#,
    r#"{"a":1}"#,
    r#"{"a":{"b":1,"c":[1,2,"x",null,true]},"d":""}"#,
    r#"{"a":[{"x":1,"y":2},{"x":3}]}"#,
    r#"{"a":[{"x":1},{"y":2}]}"#,
    r#"{"a":[[1,2],[3]]}"#,
    r#"{"a":[{"p":[{"x":1,"y":1},{"x":2}]},{"p":[{"y":2}]}]}"#,
    r#"{"a.b":1,"[]":{"a":2}}"#,
    r#"{"a":{},"b":[]}"#,
    r#"{"a":1.0,"b":"1"}"#,
];
const WANTED: &[&str] = &[
    r#"{}"#,
    r#"{"a":1}"#,
    r#"{"a":1.0}"#,
    r#"{"a":{}}"#,
    r#"{"a":[]}"#,
    r#"{"a":{"b":1}}"#,
    r#"{"a":{"c":[true,1]}}"#,
    r#"{"a":{"c":[null]},"d":""}"#,
    r#"{"a":[{"x":1,"y":2}]}"#,
    r#"{"a":[{"x":1},{"y":2}]}"#,
    r#"{"a":[{}]}"#,
    r#"{"a":[[]]}"#,
    r#"{"a":[[1,2]]}"#,
    r#"{"a":[[1,3]]}"#,
    r#"{"a":[{"p":[{"x":1,"y":1}]}]}"#,
    r#"{"a":[{"p":[{"x":1,"y":2}]}]}"#,
    r#"{"a":[{"p":[{"x":1},{"x":2}]}]}"#,
    r#"{"a":[{"p":[{"x":1},{"y":2}]}]}"#,
    r#"{"a.b":1}"#,
    r#"{"[]":{"a":2}}"#,
    r#"{"b":"1"}"#,
    r#"{"b":[]}"#,
    r#"{"z":1}"#,
];

pub(crate) async fn a_list_has_what_contains_some_metadata(store: &dyn Store) {
    let long = format!(r#"{{"{}":"{}"}}"#, "name".repeat(100), "text".repeat(1000));
    let other = format!(r#"{{"{}":"{}"}}"#, "name".repeat(100), "text".repeat(1001));
    let held: Vec<&str> = HELD.iter().copied().chain([&*long, &*other]).collect();
    let wanted: Vec<&str> = WANTED.iter().copied().chain([&*long, &*other]).collect();
    let held: Vec<Thing> = (1..)
        .zip(&held)
        .map(|(at, text)| Thing {
            metadata: metadata(text),
            ..thing(1, at)
        })
        .collect();
    // What they had before is not found any longer.
    let before: Vec<Thing> = held
        .iter()
        .map(|it| Thing {
            metadata: metadata(r#"{"z":1,"a":[{"x":1,"y":2,"z":[3]}]}"#),
            ..it.clone()
        })
        .collect();
    keep(store, &before).await;
    for thing in &held {
        let change = ThingChange::About {
            name: None,
            metadata: Some(thing.metadata.clone()),
        };
        let changed = store.things().change_thing(thing.id, &change, by(1), &told);
        assert!(changed.await.expect("changed").is_some());
    }
    for wanted in &wanted {
        let filter = ThingFilter {
            metadata: metadata(wanted),
            ..ThingFilter::default()
        };
        let found = store.things().things(&filter, Scope::Everybodys, ALL).await;
        let found = found.expect("listed");
        let expected = held
            .iter()
            .filter(|it| contains(&it.metadata, &filter.metadata));
        let expected: Vec<u64> = expected.map(|it| it.created_at.0).collect();
        assert_eq!(found.total, expected.len() as u64, "{wanted}");
        assert_eq!(ids(&found), expected, "{wanted}");
    }
}
