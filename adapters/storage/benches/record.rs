//! How many events of reads are kept in a second, and what each costs: `cargo bench --bench record`.
//!
//! One line of JSON for each store and number of callers. The processor's time is that of this process; a
//! PostgreSQL takes its own besides.

use std::time::{Duration, Instant};

use rollcall_domain::event::{Event, Stream};
use rollcall_storage::database::Database;
use serde_json::json;

#[path = "../tests/support/postgres_server.rs"]
mod postgres_server;
#[path = "../tests/contract/stores.rs"]
mod stores;

const RUN: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let sqlite = stores::sqlite().await;
    let postgres = stores::postgres().await;
    for (name, database) in [
        ("sqlite", &sqlite.database),
        ("postgres", &postgres.database),
    ] {
        for callers in [1, 8, 64, 512] {
            measure(name, database, callers).await;
        }
    }
}

async fn measure(name: &str, database: &Database, callers: usize) {
    let before = cpu();
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let database = database.clone();
        tasks.spawn(async move {
            let mut kept = 0_u64;
            while begin.elapsed() < RUN {
                let fields = [
                    ("id", "5cb2e776-c8a6-4f72-97b8-e9a1dfe89e23".to_owned()),
                    ("status", "enabled".to_owned()),
                    ("created_at", "2026-11-25T01:04:09.472314Z".to_owned()),
                    ("name", "a lamp in the hall".to_owned()),
                    ("metadata", r#"{"floor":1}"#.to_owned()),
                ];
                let event = Event::operation(Stream::Things, "thing.view", fields);
                database.record_events(vec![event]).await.expect("kept");
                kept += 1;
            }
            kept
        });
    }
    let kept: u64 = tasks.join_all().await.into_iter().sum();
    let seconds = begin.elapsed().as_secs_f64();
    let line = json!({
        "bench": "record",
        "store": name,
        "callers": callers,
        "events_per_second": (kept as f64 / seconds).round(),
        "cpu_us_per_event": ((cpu() - before).as_micros() as f64 / kept as f64).round(),
    });
    println!("{line}");
}

/// What this process has used of the processor.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    // Behind the name, which may have anything in it: user and system time, in hundredths of a second.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let fields = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|it| it.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(10 * ticks)
}
