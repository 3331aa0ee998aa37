//! Pages far behind the beginning of long lists, and lists that several change at one time.

use rollcall_domain::entity::{Status, Update};
use rollcall_domain::identity::{KeyHash, ThingId, Timestamp};
use rollcall_domain::listing::{Page, StatusFilter, Visibility};
use rollcall_domain::things::{Scope, Thing, ThingChange, ThingFilter, ThingStore};
use rollcall_domain::vault::KeptKey;
use rollcall_storage::database::Database;

use crate::lists::{
    Asked, Changed, Made, Of, SPAN, Step, WANTED, Who, listed, status, take, thing,
};
use crate::stores;
use crate::things::{key, metadata, told, user};

/// Things whose lists are cut into many spans, a tenth of them disabled, all tagged alike.
async fn many(database: &Database) -> Vec<Thing> {
    let things: Vec<Thing> = (0..300_u64)
        .map(|number| Thing {
            id: ThingId::from_bytes((u128::from(number) + 1).to_be_bytes()),
            owner: user(1),
            name: String::new(),
            tags: vec!["all".into()],
            identity: String::new(),
            metadata: metadata(r#"{"kind":["lamp"]}"#),
            status: status(number % 10 > 0),
            created_at: Timestamp(number / 3),
            update: None,
        })
        .collect();
    for things in things.chunks(90) {
        let rows: Vec<(Thing, KeptKey)> = things
            .iter()
            .map(|it| {
                let mut hash = [0; 32];
                hash[..16].copy_from_slice(it.id.as_bytes());
                let hash = KeyHash::from_bytes(hash);
                (it.clone(), KeptKey { hash, sealed: None })
            })
            .collect();
        database.add_things(&rows, vec![]).await.expect("kept");
    }
    things
}

async fn pages_far_behind_are_the_same_as_from_the_beginning(database: &Database) {
    let database = &database.clone().with_spans_of(8);
    let mut things = many(database).await;
    // Everything at one end is in another status than it was made in.
    for thing in &mut things[..40] {
        if thing.status == Status::Enabled {
            thing.status = Status::Disabled;
            let change = ThingChange::Status(Status::Disabled);
            let update = Update {
                at: Timestamp(1),
                by: user(1),
            };
            thing.update = Some(update);
            let changed = database
                .change_thing(thing.id, &change, update, &told)
                .await;
            assert!(changed.expect("changed").is_some());
        }
    }
    for status in [
        StatusFilter::Enabled,
        StatusFilter::Disabled,
        StatusFilter::All,
    ] {
        let all: Vec<&Thing> = things
            .iter()
            .filter(|it| status.includes(it.status))
            .collect();
        let total = all.len() as u64;
        let plain = ThingFilter {
            status,
            ..ThingFilter::default()
        };
        let tagged = ThingFilter {
            tag: Some("all".into()),
            ..plain.clone()
        };
        let lamps = ThingFilter {
            metadata: metadata(r#"{"kind":["lamp"]}"#),
            ..plain.clone()
        };
        for filter in [&plain, &tagged, &lamps] {
            // Past the middle and to the end, and backwards to the beginning.
            for offset in (0..=total).rev().step_by(37).chain([total / 2, total - 1]) {
                let page = Page { offset, limit: 20 };
                let listing = ThingStore::things(database, filter, Scope::Everybodys, page).await;
                let listing = listing.expect("listed");
                assert_eq!(listing.total, total);
                let expected = all
                    .iter()
                    .skip(usize::try_from(offset).expect("few"))
                    .take(20);
                assert!(
                    listing.items.iter().eq(expected.copied()),
                    "{filter:?} from {offset}"
                );
            }
        }
    }
}

#[tokio::test]
async fn pages_far_behind_are_right_in_sqlite() {
    pages_far_behind_are_the_same_as_from_the_beginning(&stores::sqlite().await.database).await;
}

#[tokio::test]
async fn pages_far_behind_are_right_in_postgresql() {
    pages_far_behind_are_the_same_as_from_the_beginning(&stores::postgres().await.database).await;
}

/// Things of each of those who change them at one time.
const FEW: usize = 12;

/// Two processes that do everything at one time: what each counts, the other counts with.
#[tokio::test]
async fn lists_have_everything_whoever_changes_it_at_the_same_time() {
    let store = stores::postgres().await;
    let here = store.database.clone().with_spans_of(SPAN);
    let there = Database::connect(&store.place.1).await.expect("opens too");
    let there = there.with_spans_of(SPAN);
    let channel = Step::Channel(0, true);
    let make = |from: usize| {
        (from..from + FEW)
            .map(|number| {
                let made = Made {
                    owner: 0,
                    name: 0,
                    tags: vec![0],
                    metadata: 1,
                    is_on: true,
                    at: u8::try_from(number % 20).expect("few"),
                };
                (
                    thing(number, &made),
                    key(u8::try_from(number).expect("few")),
                )
            })
            .collect::<Vec<_>>()
    };
    take(&here, &[channel]).await;
    here.add_things(&make(0), vec![]).await.expect("kept");
    let mut tasks = tokio::task::JoinSet::new();
    for (n, database) in [here.clone(), there.clone()].into_iter().enumerate() {
        let rows = make(FEW * (n + 1));
        tasks.spawn({
            let database = database.clone();
            async move {
                for row in rows {
                    database.add_things(&[row], vec![]).await.expect("kept");
                }
            }
        });
        tasks.spawn({
            let database = database.clone();
            async move {
                // Both switch the same ones, and connect them.
                for number in 0..FEW {
                    let steps = [
                        Step::Change(number, Changed::Status(n == 0)),
                        Step::Allow(vec![(Who::Thing(number), 0, n == 0)]),
                        Step::Change(number, Changed::Tags(vec![0, 1])),
                        Step::Change(number, Changed::Metadata(n)),
                    ];
                    take(&database, &steps).await;
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("done");
    }
    for of in [Of::Everybody, Of::User(0, Visibility::Mine), Of::Channel(0)] {
        for status in [
            StatusFilter::Enabled,
            StatusFilter::Disabled,
            StatusFilter::All,
        ] {
            let asked = |tag, metadata| Asked {
                status,
                name: None,
                tag,
                owner: None,
                metadata,
                of,
            };
            let whole = Page {
                offset: 0,
                limit: 1_000,
            };
            let everything = listed(&here, &asked(None, 0), whole).await;
            if status == StatusFilter::All {
                let all = if let Of::Channel(_) = of {
                    FEW
                } else {
                    3 * FEW
                };
                assert_eq!(everything.0.len(), all);
            }
            assert!(everything.0.iter().all(|it| status.includes(it.status)));
            for (tag, wanted) in [(None, 0), (Some(0), 0), (Some(1), 0), (None, 1)] {
                let fits = |it: &&Thing| {
                    tag.is_none_or(|n| it.tags.contains(&format!("tag {n}")))
                        && (wanted == 0 || it.metadata == metadata(WANTED[wanted]))
                };
                let expected: Vec<&Thing> = everything.0.iter().filter(fits).collect();
                let asked = asked(tag, wanted);
                let total = expected.len() as u64;
                for offset in (0..total).step_by(5) {
                    let page = Page { offset, limit: 5 };
                    let (items, found) = listed(&there, &asked, page).await;
                    assert_eq!(found, total, "{asked:?}");
                    let from = usize::try_from(offset).expect("few");
                    let page = expected.iter().skip(from).take(5).copied();
                    assert!(items.iter().eq(page), "{asked:?} from {offset}");
                }
            }
        }
    }
}
