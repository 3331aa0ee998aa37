//! How long a page of 100 things takes among a million, in SQLite and in a PostgreSQL that it starts itself:
//! `cargo bench --bench lists [-- [--json] [--only sqlite|postgres] [THINGS]]`.
//!
//! A line for each list: its size, the median and the slowest of some pages, and whether the median keeps the goal.

use std::time::{Duration, Instant};

use rollcall_domain::entity::{Metadata, Status};
use rollcall_domain::event::{Event, Stream};
use rollcall_domain::groups::{Group, GroupStore, Policy, PolicyStore, Subject};
use rollcall_domain::identity::{ChannelId, KeyHash, ThingId, Timestamp, UserId};
use rollcall_domain::listing::{Page, StatusFilter, Visibility};
use rollcall_domain::policies::Action;
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
/// Things made one by one at the end.
const SINGLES: u64 = 200;
const GOAL: Duration = Duration::from_millis(10);

#[derive(Clone, Copy)]
struct Bench {
    store: &'static str,
    things: u64,
    is_json: bool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let things = given.iter().find_map(|it| it.parse().ok());
    let only = given.iter().position(|it| it == "--only");
    let only = only.and_then(|place| given.get(place + 1));
    let bench = |store| Bench {
        store,
        things: things.unwrap_or(THINGS),
        is_json: given.iter().any(|it| it == "--json"),
    };
    let is_wanted = |store: &str| only.is_none_or(|only| only == store);
    if is_wanted("sqlite") {
        let store = stores::sqlite().await;
        let bench = bench("sqlite");
        bench.fill(&store.database).await;
        let file = std::fs::metadata(store.place.path().join("rollcall.db"));
        bench.say(
            "size of the file, MB",
            file.map_or(0, |it| it.len() / 1_000_000),
        );
        bench.lists(&store.database).await;
        bench.singles(&store.database).await;
    }
    if is_wanted("postgres") {
        let store = stores::postgres().await;
        let bench = bench("postgres");
        bench.fill(&store.database).await;
        // As its own upkeep does in quiet minutes.
        let (server, name) = (&store.place.0, &store.place.2);
        server.query(name, "VACUUM ANALYZE");
        let size = server.query(
            name,
            "SELECT pg_database_size(current_database()) / 1000000",
        );
        bench.say("size of the database, MB", size.parse().unwrap_or(0));
        bench.lists(&store.database).await;
        bench.singles(&store.database).await;
    }
}

fn owner(number: u64) -> UserId {
    UserId::from_bytes((u128::from(number % OWNERS) + 1).to_be_bytes())
}

/// Owns nothing, and is let see what is on the channels.
fn guest() -> UserId {
    UserId::from_bytes([255; 16])
}

fn channel(number: u8) -> ChannelId {
    ChannelId::from_bytes([number; 16])
}

/// A tenth is disabled, and a tenth has one owner; others have a thousand things each. Names, tags and rooms are of a
/// thousand, or of a tenth; a serial number is of one.
fn thing(number: u64) -> Thing {
    let (some, tenth) = (number / 1_000, number % 10);
    let mut metadata = Metadata::new();
    metadata.insert("room".into(), json!(some));
    metadata.insert("kind".into(), json!(["lamp", tenth]));
    metadata.insert("serial".into(), json!(number));
    Thing {
        id: ThingId::generate(),
        owner: match tenth {
            7 => owner(0),
            _ => owner(number % (OWNERS - 1) + 1),
        },
        name: match tenth {
            3 => "lamp".to_owned(),
            _ => format!("name {some}"),
        },
        tags: vec![format!("tag {some}"), format!("tenth {tenth}")],
        identity: String::new(),
        metadata,
        status: match tenth {
            0 => Status::Disabled,
            _ => Status::Enabled,
        },
        created_at: Timestamp(1_700_000_000_000_000_000 + number * 1_000_000),
        update: None,
    }
}

fn key(number: u64) -> KeptKey {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    KeptKey {
        hash: KeyHash::from_bytes(hash),
        sealed: None,
    }
}

fn policy(subject: Subject, object: ChannelId) -> Policy<ChannelId> {
    Policy {
        subject,
        object,
        actions: [Action::ClientList].into_iter().collect(),
        owner: owner(0),
        vouched: true,
        created_at: Timestamp(1),
        update: None,
    }
}

fn ms(time: Duration) -> f64 {
    (time.as_micros() as f64 / 10.0).round() / 100.0
}

impl Bench {
    fn say(self, what: &str, number: u64) {
        let Self { store, things, .. } = self;
        match self.is_json {
            true => println!(
                "{}",
                json!({"bench": "lists", "store": store, "things": things, what: number})
            ),
            false => println!("{store:8} {what}: {number}"),
        }
    }

    fn said(self, list: &str, total: u64, goal: Option<Duration>, mut times: Vec<Duration>) {
        times.sort_unstable();
        let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
        let kept = goal.map(|goal| median < goal);
        let Self { store, things, .. } = self;
        if self.is_json {
            let line = json!({
                "bench": "lists",
                "store": store,
                "things": things,
                "list": list,
                "total": total,
                "ms_median": ms(median),
                "ms_slowest": ms(slowest),
                "ms_goal": goal.map(ms),
                "kept": kept,
            });
            return println!("{line}");
        }
        let verdict = match kept {
            Some(true) => "kept",
            Some(false) => "MISSED",
            None => "no goal",
        };
        let (median, slowest) = (ms(median), ms(slowest));
        println!(
            "{store:8} {list:42} {total:9} {median:9.2} ms, slowest {slowest:9.2} ms  {verdict}"
        );
    }

    /// Things, and two channels: one has a hundredth of them, one a tenth.
    async fn fill(self, database: &Database) {
        let begin = Instant::now();
        let mut ids = Vec::new();
        for first in (0..self.things).step_by(BATCH as usize) {
            let rows = first..(first + BATCH).min(self.things);
            let rows: Vec<_> = rows.map(|number| (thing(number), key(number))).collect();
            ids.extend(rows.iter().map(|(thing, _)| thing.id));
            database.add_things(&rows, Vec::new()).await.expect("kept");
        }
        self.say("seconds to make them", begin.elapsed().as_secs());
        let begin = Instant::now();
        for (number, part) in [(1, 100), (2, 10)] {
            let group = Group {
                id: channel(number),
                owner: owner(0),
                ancestors: Vec::new(),
                name: number.to_string(),
                description: String::new(),
                metadata: Metadata::new(),
                status: Status::Enabled,
                created_at: Timestamp(1),
                update: None,
            };
            database.add_groups(&[group], vec![]).await.expect("kept");
            let members = ids
                .iter()
                .skip(1)
                .step_by(part)
                .map(|id| Subject::Thing(*id));
            let members: Vec<_> = members.map(|it| policy(it, channel(number))).collect();
            let told = |_: &Policy<ChannelId>| Event::operation(Stream::Things, "policies.add", []);
            for members in members.chunks(BATCH as usize) {
                database.put_policies(members, &told).await.expect("kept");
            }
        }
        let guests = [
            policy(Subject::User(guest()), channel(1)),
            policy(Subject::User(owner(3)), channel(1)),
            policy(Subject::User(owner(0)), channel(2)),
            policy(Subject::User(owner(2)), channel(1)),
            policy(Subject::User(owner(2)), channel(2)),
        ];
        let told = |_: &Policy<ChannelId>| Event::operation(Stream::Things, "policies.add", []);
        database.put_policies(&guests, &told).await.expect("kept");
        self.say("seconds to connect a ninth", begin.elapsed().as_secs());
    }

    async fn lists(self, database: &Database) {
        let things = self.things;
        let all = ThingFilter::default();
        let status = |status| ThingFilter {
            status,
            ..ThingFilter::default()
        };
        let named = |name: String| ThingFilter {
            name: Some(name),
            ..ThingFilter::default()
        };
        let tagged = |tag: String| ThingFilter {
            tag: Some(tag),
            ..ThingFilter::default()
        };
        let metadata = |text: String| ThingFilter {
            metadata: serde_json::from_str(&text).expect("an object"),
            ..ThingFilter::default()
        };
        let some = things / 2_000;
        let everybodys = Scope::Everybodys;
        let own = |number| Scope::Of(owner(number), Visibility::Mine);
        let shared = |user| Scope::Of(user, Visibility::Shared);
        let any = |user| Scope::Of(user, Visibility::All);
        let (enabled, tenth) = (things * 9 / 10, things / 10);
        let lamps = || metadata(r#"{"kind":["lamp",3]}"#.to_owned());
        let both = |tag: &str, text: &str| ThingFilter {
            tag: Some(tag.to_owned()),
            ..metadata(text.to_owned())
        };
        for (list, filter, scope, offset) in [
            ("first page", all.clone(), everybodys, 0),
            ("offset 1000", all.clone(), everybodys, 1_000),
            ("in the middle", all.clone(), everybodys, enabled / 2),
            ("at the end", all.clone(), everybodys, enabled - 100),
            ("of any status", status(StatusFilter::All), everybodys, 0),
            (
                "of any status, in the middle",
                status(StatusFilter::All),
                everybodys,
                things / 2,
            ),
            ("disabled", status(StatusFilter::Disabled), everybodys, 0),
            (
                "disabled, in the middle",
                status(StatusFilter::Disabled),
                everybodys,
                tenth / 2,
            ),
            (
                "by a name of a thousand",
                named(format!("name {some}")),
                everybodys,
                0,
            ),
            ("by a name of a tenth", named("lamp".into()), everybodys, 0),
            (
                "by a name of a tenth, in the middle",
                named("lamp".into()),
                everybodys,
                tenth / 2,
            ),
            (
                "by a tag of a thousand",
                tagged(format!("tag {some}")),
                everybodys,
                0,
            ),
            (
                "by a tag of a tenth",
                tagged("tenth 3".into()),
                everybodys,
                0,
            ),
            (
                "by a tag of a tenth, in the middle",
                tagged("tenth 3".into()),
                everybodys,
                tenth / 2,
            ),
            (
                "by metadata of one",
                metadata(format!(r#"{{"serial":{}}}"#, things / 2 + 1)),
                everybodys,
                0,
            ),
            (
                "by metadata of a thousand",
                metadata(format!(r#"{{"room":{some}}}"#)),
                everybodys,
                0,
            ),
            (
                "by metadata of a tenth",
                metadata(r#"{"kind":[3]}"#.into()),
                everybodys,
                0,
            ),
            (
                "by metadata of a tenth, in the middle",
                metadata(r#"{"kind":[3]}"#.into()),
                everybodys,
                tenth / 2,
            ),
            (
                "by metadata of all",
                metadata(r#"{"kind":["lamp"]}"#.into()),
                everybodys,
                enabled / 2,
            ),
            ("own, of a thousand", all.clone(), own(3), 0),
            ("own, of a tenth", all.clone(), own(0), 0),
            (
                "own, of a tenth, in the middle",
                all.clone(),
                own(0),
                tenth / 2,
            ),
            (
                "own, by a tag of a thousand",
                tagged(format!("tag {some}")),
                own(0),
                0,
            ),
            (
                "shared, by a channel of a hundredth",
                all.clone(),
                shared(guest()),
                0,
            ),
            (
                "shared, by a channel of a tenth",
                all.clone(),
                shared(owner(0)),
                0,
            ),
            (
                "shared, by a channel of a tenth, in the middle",
                all.clone(),
                shared(owner(0)),
                tenth / 2,
            ),
            (
                "own and shared, by a channel of a hundredth",
                all.clone(),
                any(owner(3)),
                0,
            ),
        ] {
            self.list(database, list, &filter, scope, offset, Some(GOAL))
                .await;
        }
        for (list, filter, scope) in [
            ("by two values of a tenth and of all", lamps(), everybodys),
            (
                "by a tag and metadata, each of a tenth",
                both("tenth 3", r#"{"kind":[3]}"#),
                everybodys,
            ),
            (
                "own, of a tenth, by metadata of all",
                metadata(r#"{"kind":["lamp"]}"#.into()),
                own(0),
            ),
            (
                "own and shared, by both channels",
                all.clone(),
                any(owner(2)),
            ),
        ] {
            self.list(database, list, &filter, scope, 0, None).await;
        }
        for (list, number, part, offset) in [
            ("of a channel of a hundredth", 1, 100, 0),
            ("of a channel of a tenth", 2, 10, 0),
            ("of a channel of a tenth, in the middle", 2, 10, things / 20),
        ] {
            let page = Page { offset, limit: 100 };
            let mut times = Vec::new();
            for _ in 0..PAGES {
                let begin = Instant::now();
                let listing = database.things_of_channel(channel(number), &all, page);
                let listing = listing.await.expect("read");
                times.push(begin.elapsed());
                assert_eq!(listing.items.len(), 100, "{list}");
                assert_eq!(listing.total, things / part, "{list}");
            }
            self.said(list, things / part, Some(GOAL), times);
        }
    }

    async fn list(
        self,
        database: &Database,
        list: &str,
        filter: &ThingFilter,
        scope: Scope,
        offset: u64,
        goal: Option<Duration>,
    ) {
        let page = Page { offset, limit: 100 };
        let mut times = Vec::new();
        let mut total = 0;
        for _ in 0..PAGES {
            let begin = Instant::now();
            let listing = database.things(filter, scope, page).await.expect("read");
            times.push(begin.elapsed());
            total = listing.total;
            let expected = total.saturating_sub(offset).min(100);
            assert_eq!(listing.items.len() as u64, expected, "{list}");
        }
        self.said(list, total, goal, times);
    }

    /// What each costs that is made by itself, with its event.
    async fn singles(self, database: &Database) {
        let mut times = Vec::new();
        for number in self.things..self.things + SINGLES {
            let event = Event::operation(Stream::Things, "thing.create", []);
            let row = [(thing(number), key(number))];
            let begin = Instant::now();
            database.add_things(&row, vec![event]).await.expect("kept");
            times.push(begin.elapsed());
        }
        self.said("to make one more", self.things, None, times);
    }
}
