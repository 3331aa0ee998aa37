//! How long a page of 100 things takes among a million: `cargo bench --bench lists [-- THINGS]`.
//!
//! One line of JSON for each store and list: the median and the slowest of some pages, and the size of the list.

use std::time::{Duration, Instant};

use rollcall_domain::entity::{Metadata, Status};
use rollcall_domain::identity::{KeyHash, ThingId, Timestamp, UserId};
use rollcall_domain::listing::{Page, StatusFilter, Visibility};
use rollcall_domain::things::{Scope, Thing, ThingFilter, ThingStore};
use rollcall_domain::vault::KeptKey;
use rollcall_storage::database::Database;
use serde_json::json;

#[path = "../tests/support/postgres_server.rs"]
mod postgres_server;
#[path = "../tests/contract/stores.rs"]
mod stores;

const THINGS: u64 = 1_000_000;
const BATCH: u64 = 10_000;
const OWNERS: u64 = 1_001;
const PAGES: usize = 21;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let given = std::env::args().find_map(|it| it.parse().ok());
    let things: u64 = given.unwrap_or(THINGS);
    let sqlite = stores::sqlite().await;
    measure("sqlite", &sqlite.database, things).await;
    drop(sqlite);
    let postgres = stores::postgres().await;
    fill(&postgres.database, things).await;
    // As its own upkeep does in quiet minutes.
    let (server, name) = (&postgres.place.0, &postgres.place.2);
    server.query(name, "VACUUM ANALYZE");
    lists("postgres", &postgres.database, things).await;
}

async fn measure(name: &str, database: &Database, things: u64) {
    fill(database, things).await;
    lists(name, database, things).await;
}

fn owner(number: u64) -> UserId {
    UserId::from_bytes((u128::from(number % OWNERS) + 1).to_be_bytes())
}

/// A tenth is disabled; a name, a tag and a room are of a thousand things each, a kind of a tenth of all.
fn thing(number: u64) -> Thing {
    let mut metadata = Metadata::new();
    metadata.insert("room".into(), json!(number / 1_000));
    metadata.insert("kind".into(), json!(["lamp", number % 10]));
    Thing {
        id: ThingId::generate(),
        owner: owner(number),
        name: format!("name {}", number / 1_000),
        tags: vec![format!("tag {}", number / 1_000)],
        identity: String::new(),
        metadata,
        status: match number % 10 {
            0 => Status::Disabled,
            _ => Status::Enabled,
        },
        created_at: Timestamp(1_700_000_000_000_000_000 + number * 1_000_000),
        update: None,
    }
}

async fn fill(database: &Database, things: u64) {
    let begin = Instant::now();
    for first in (0..things).step_by(BATCH as usize) {
        let rows = first..(first + BATCH).min(things);
        let rows: Vec<_> = rows
            .map(|number| {
                let mut hash = [0; 32];
                hash[..8]
                    .copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
                let key = KeptKey {
                    hash: KeyHash::from_bytes(hash),
                    sealed: None,
                };
                (thing(number), key)
            })
            .collect();
        database.add_things(&rows, Vec::new()).await.expect("kept");
    }
    eprintln!("{things} things in {:.0} s", begin.elapsed().as_secs_f64());
}

async fn lists(store: &str, database: &Database, things: u64) {
    let all = ThingFilter::default();
    let named = ThingFilter {
        name: Some(format!("name {}", things / 2_000)),
        ..all.clone()
    };
    let tagged = ThingFilter {
        tag: Some(format!("tag {}", things / 2_000)),
        ..all.clone()
    };
    let metadata = |text: String| ThingFilter {
        metadata: serde_json::from_str(&text).expect("an object"),
        ..all.clone()
    };
    let status = |status| ThingFilter {
        status,
        ..all.clone()
    };
    let everybodys = Scope::Everybodys;
    let own = Scope::Of(owner(1), Visibility::Mine);
    for (list, filter, scope, offset) in [
        ("first page", all.clone(), everybodys, 0),
        ("offset 1000", all.clone(), everybodys, 1_000),
        (
            "offset in the middle",
            all.clone(),
            everybodys,
            things * 45 / 100,
        ),
        (
            "offset at the end",
            all.clone(),
            everybodys,
            things * 9 / 10 - 100,
        ),
        ("of any status", status(StatusFilter::All), everybodys, 0),
        ("disabled", status(StatusFilter::Disabled), everybodys, 0),
        ("by name", named, everybodys, 0),
        ("by tag", tagged, everybodys, 0),
        (
            "by metadata of a thousand",
            metadata(format!(r#"{{"room":{}}}"#, things / 2_000)),
            everybodys,
            0,
        ),
        (
            "by metadata of a tenth",
            metadata(r#"{"kind":["lamp",3]}"#.to_owned()),
            everybodys,
            0,
        ),
        ("of an owner", all.clone(), own, 0),
        (
            "of an owner, in the middle",
            all.clone(),
            own,
            things / OWNERS / 2 - 50,
        ),
    ] {
        let page = Page { offset, limit: 100 };
        let mut times = Vec::new();
        let mut total = 0;
        for _ in 0..PAGES {
            let begin = Instant::now();
            let listing = database.things(&filter, scope, page).await.expect("read");
            times.push(begin.elapsed());
            assert_eq!(listing.items.len(), 100, "{list}");
            total = listing.total;
        }
        times.sort_unstable();
        let ms = |time: Duration| (time.as_micros() as f64 / 10.0).round() / 100.0;
        let line = json!({
            "bench": "lists",
            "store": store,
            "things": things,
            "list": list,
            "total": total,
            "ms_median": ms(times[PAGES / 2]),
            "ms_slowest": ms(times[PAGES - 1]),
        });
        println!("{line}");
    }
}
