//! Many survivors at one instance that is gone.

use std::process::{Child, Command, Stdio};

use async_trait::async_trait;
use rollcall_domain::event::{Entry, Stream};
use rollcall_domain::identity::{SessionId, ThingId};
use rollcall_domain::ports::{EventLog, LogError};
use rollcall_domain::presence::{Noted, Online, Roll, Snapshot};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::Url;
use crate::stream::Reader;

/// The journal of an instance to which nothing happens.
struct Empty(String);

#[async_trait]
impl EventLog for Empty {
    fn stream(&self) -> Stream {
        Stream::Mqtt
    }

    fn producer(&self) -> Uuid {
        Uuid::nil()
    }

    async fn read(&self, _: u64, _: usize) -> Result<Vec<Entry>, LogError> {
        Ok(Vec::new())
    }

    fn last(&self) -> u64 {
        0
    }

    fn relayed(&self) -> u64 {
        0
    }

    async fn set_relayed(&self, _: u64) -> Result<(), LogError> {
        Ok(())
    }

    async fn renew_producer(&self) -> Result<Uuid, LogError> {
        Ok(Uuid::nil())
    }

    async fn wait(&self, _: u64) {}
}

impl Roll for Empty {
    fn instance(&self) -> &str {
        &self.0
    }

    fn online(&self) -> Vec<Online> {
        Vec::new()
    }

    fn online_of(&self, _: ThingId) -> Vec<Online> {
        Vec::new()
    }

    fn len(&self) -> usize {
        0
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::default()
    }
}

#[async_trait]
impl Journal for Empty {
    async fn read_changes(&self, _: u64, _: usize) -> Result<Vec<Noted>, LogError> {
        Ok(Vec::new())
    }

    async fn reannounce(&self, _: Vec<SessionId>) {}

    fn place(&self) -> &str {
        &self.0
    }
}

struct Server(Child, TempDir);

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--unixsocket", "redis.sock", "--save", ""])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed: see tests/run");
        Self(child, folder)
    }

    fn redis(&self) -> Redis {
        let socket = self.1.path().join("redis.sock");
        Redis {
            url: Url::new(format!("redis+unix://{}", socket.display())),
            prefix: "p".to_owned(),
            batch: 256,
            pipeline: 4,
            take_over: true,
            max_stream_length: 0,
            max_stream_age: Duration::ZERO,
            wait_replicas: 0,
            wait_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(10),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(1),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn however_many_survivors_race_each_session_is_closed_once_and_in_order() {
    const SESSIONS: usize = 10_000;
    let server = Server::start();
    let redis = server.redis();
    let keepers: Vec<Arc<Keeper>> = (0..8)
        .map(|n| {
            let client = crate::connect::Client::open(&redis.url).expect("an address");
            // Steps end soon, so that others get in between.
            let config = Config {
                ttl: Duration::from_millis(500),
            };
            let journal = Arc::new(Empty(format!("survivor {n}")));
            Arc::new(Keeper::new(client, redis.clone(), config, journal, true))
        })
        .collect();
    let mut connection = loop {
        match keepers[0].connect().await {
            Ok(connection) => break connection,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let keys = Keys::new("p");
    let mut rows = redis::pipe();
    for n in 0..SESSIONS {
        let row = format!(
            r#"{{"thing_id":"t","instance":"dead","since":"{n}","client_id":"","protocol":"","peer":""}}"#
        );
        rows.hset(keys.part("dead"), n.to_string(), row).ignore();
    }
    rows.hset(keys.record("dead"), "epoch", "e").ignore();
    rows.hset(keys.record("dead"), "at", "100").ignore();
    rows.hset(keys.record("dead"), "alive", "150").ignore();
    rows.hset(keys.roll(), "dead", "0-0").ignore();
    rows.query_async::<()>(&mut connection).await.expect("rows");

    let mut racing = JoinSet::new();
    for keeper in &keepers {
        let keeper = Arc::clone(keeper);
        racing.spawn(async move {
            let mut redis = keeper.connect().await.expect("redis");
            loop {
                keeper.close(&mut redis, "dead").await.expect("closed");
                let left: u64 = Cmd::hlen(keeper.keys.part("dead"))
                    .query_async(&mut redis)
                    .await
                    .expect("a number");
                if left == 0 {
                    return;
                }
            }
        });
    }
    while let Some(ended) = racing.join_next().await {
        ended.expect("no panic");
    }

    let mut reader = Reader::new(&redis.url, keys.stream.clone(), 0).expect("an address");
    let (mut closed, mut last) = (Vec::new(), 150);
    loop {
        let entries = reader.next().await.expect("entries");
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            let value = |name: &str| {
                let found = entry.fields.iter().find(|(known, _)| known == name);
                found.map(|(_, value)| value.to_string()).expect("a field")
            };
            let at: u64 = value("occurred_at").parse().expect("a time");
            assert!(at > last, "{at} after {last}");
            last = at;
            assert_eq!(value("reason"), "instance_failed");
            closed.push(value("session_id"));
        }
    }
    closed.sort_unstable();
    let mut all: Vec<String> = (0..SESSIONS).map(|n| n.to_string()).collect();
    all.sort_unstable();
    assert_eq!(closed, all);
    let gone: bool = Cmd::hexists(keys.roll(), "dead")
        .query_async(&mut connection)
        .await
        .expect("an answer");
    assert!(!gone, "nobody is left on the roll");
}

#[tokio::test]
async fn clocks_that_are_wrong_by_hours_neither_end_nor_prolong_a_lease() {
    const HOUR: u64 = 3_600_000_000_000;
    let now = Timestamp::now().0;
    for (name, clock) in [("slow", now - HOUR), ("fast", now + HOUR)] {
        let server = Server::start();
        let redis = server.redis();
        let keeper = |name: &str| {
            let client = crate::connect::Client::open(&redis.url).expect("an address");
            // Long enough to be there as long as the test is.
            let config = Config {
                ttl: Duration::from_secs(3600),
            };
            let journal = Arc::new(Empty(name.to_owned()));
            Keeper::new(client, redis.clone(), config, journal, true)
        };
        let (wrong, survivor) = (keeper(name), keeper("survivor"));
        let mut connection = loop {
            match survivor.connect().await {
                Ok(connection) => break connection,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        wrong.acquire(&mut connection).await.expect("the lease");
        let keys = &wrong.keys;
        let row = format!(
            r#"{{"thing_id":"t","instance":"{name}","since":"{clock}","client_id":"","protocol":"","peer":""}}"#
        );
        let mut set = redis::pipe();
        set.hset(keys.part(name), "session", row).ignore();
        set.hset(keys.record(name), "at", clock).ignore();
        set.hset(keys.record(name), "alive", clock).ignore();
        set.query_async::<()>(&mut connection).await.expect("a row");

        let closes = async |connection: &mut MultiplexedConnection| {
            let closed = survivor.close(connection, name).await;
            closed.expect("an answer");
            let left = Cmd::hlen(keys.part(name));
            let left: u64 = left.query_async(connection).await.expect("a number");
            left == 0
        };
        assert!(!closes(&mut connection).await, "{name} has its lease");
        // Redis lets it run out.
        let expire = Cmd::pexpire(keys.lease(name), 1);
        expire.exec_async(&mut connection).await.expect("expires");
        loop {
            let lease = Cmd::exists(keys.lease(name));
            let lease = lease.query_async::<bool>(&mut connection).await;
            let is_there = lease.expect("an answer");
            if !is_there {
                break;
            }
        }
        assert!(closes(&mut connection).await, "{name} has none");
        // When it was, says the clock of the one that is gone.
        let at: u64 = Cmd::hget(keys.record(name), "at")
            .query_async(&mut connection)
            .await
            .expect("a time");
        assert_eq!(at, clock + 1);
    }
}
