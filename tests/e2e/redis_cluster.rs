//! Redis as a cluster: each stream is where its slot is, also when that moves.

use std::time::{Duration, Instant};

use crate::client::Hello;
use crate::redis_server::{RedisServer, free_port};
use crate::storms::Storm;
use crate::takeover::introduce;
use crate::world::{World, check_pairs, wait_for};

const STREAM: &str = "mainflux.mqtt";

/// Three masters that share the slots; behind them, if so wanted, a replica of each, in the same order.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<(u16, RedisServer)>,
}

impl Cluster {
    fn start() -> Self {
        Self::with(3, |port| vec!["--port".into(), port.to_string()])
    }

    /// Each listens as the arguments say that its port is given to.
    pub(crate) fn with(nodes: usize, listen: impl Fn(u16) -> Vec<String>) -> Self {
        let nodes: Vec<(u16, RedisServer)> = (0..nodes)
            .map(|_| {
                let (port, bus) = (free_port(), free_port().to_string());
                let listen = listen(port);
                let mut arguments: Vec<&str> = listen.iter().map(String::as_str).collect();
                arguments.extend(["--cluster-port", &bus, "--cluster-enabled", "yes"]);
                arguments.extend(["--cluster-node-timeout", "1500"]);
                arguments.extend(["--repl-diskless-sync-delay", "0"]);
                (port, RedisServer::with(&arguments))
            })
            .collect();
        for (n, (_, node)) in nodes.iter().enumerate() {
            if n < 3 {
                let (first, last) = (n * 16_384 / 3, (n + 1) * 16_384 / 3 - 1);
                let range = [first, last].map(|slot| slot.to_string());
                node.command::<String>(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]);
            }
            node.command::<String>(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
        }
        for (port, node) in &nodes {
            let port = port.to_string();
            let bus: Vec<String> = node.command(&["CONFIG", "GET", "cluster-port"]);
            for (_, other) in &nodes {
                other.command::<String>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus[1]]);
            }
        }
        let cluster = Self { nodes };
        let known = format!("cluster_known_nodes:{}", cluster.nodes.len());
        wait_for("the cluster", || {
            let ready = cluster.nodes.iter().all(|(_, node)| {
                let info: String = node.command(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains(&known)
            });
            ready.then_some(())
        });
        for (n, (_, replica)) in cluster.nodes.iter().enumerate().skip(3) {
            replica.command::<String>(&["CLUSTER", "REPLICATE", &cluster.id(n - 3)]);
        }
        for n in 3..cluster.nodes.len() {
            cluster.wait_for_role(n, "slave");
        }
        cluster
    }

    pub(crate) fn wait_for_role(&self, node: usize, role: &str) {
        wait_for(role, || {
            let info: String = self.nodes[node].1.command(&["INFO", "replication"]);
            let is_linked = role == "master" || info.contains("master_link_status:up");
            (info.contains(&format!("role:{role}")) && is_linked).then_some(())
        });
    }

    /// A replica takes over in good order. Redis gives up on that after five seconds.
    pub(crate) fn promote(&self, node: usize) {
        let mut asked: Option<Instant> = None;
        wait_for("a replica to take over", || {
            let replica = &self.nodes[node].1;
            let info: String = replica.command(&["INFO", "replication"]);
            if info.contains("role:master") {
                return Some(());
            }
            if asked.is_none_or(|at| at.elapsed() > Duration::from_secs(7)) {
                replica.command::<String>(&["CLUSTER", "FAILOVER"]);
                asked = Some(Instant::now());
            }
            None
        });
    }

    pub(crate) fn hosts(&self) -> String {
        let nodes = self.nodes.iter();
        let nodes = nodes.map(|(port, _)| format!("127.0.0.1:{port}"));
        nodes.collect::<Vec<_>>().join(",")
    }

    fn url(&self) -> String {
        format!("redis+cluster://{}", self.hosts())
    }

    fn slot(&self, key: &str) -> u64 {
        self.nodes[0].1.command(&["CLUSTER", "KEYSLOT", key])
    }

    /// The place of the node that has the slot of a key.
    pub(crate) fn home(&self, key: &str) -> usize {
        let slot = self.slot(key) as usize;
        let found = (0..3).rfind(|n| n * 16_384 / 3 <= slot);
        found.expect("a node")
    }

    fn id(&self, node: usize) -> String {
        self.nodes[node].1.command(&["CLUSTER", "MYID"])
    }

    /// Moves a slot with all that is in it.
    fn move_slot(&self, slot: u64, from: usize, to: usize) {
        let (old, new) = (self.id(from), self.id(to));
        let slot = slot.to_string();
        let (source, target) = (&self.nodes[from].1, &self.nodes[to].1);
        target.command::<String>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &old]);
        source.command::<String>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &new]);
        let port = self.nodes[to].0.to_string();
        loop {
            let keys: Vec<String> = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]);
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            source.command::<String>(&words);
        }
        for (_, node) in [&self.nodes[to], &self.nodes[from]] {
            node.command::<String>(&["CLUSTER", "SETSLOT", &slot, "NODE", &new]);
        }
    }
}

#[test]
fn every_stream_is_at_home_in_a_cluster_and_follows_its_slot() {
    let cluster = Cluster::start();
    let mut world = World::prepared(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_REDIS__URL", &cluster.url()),
        ("ROLLCALL_REDIS__RETRY_MAX", "200ms"),
    ]);
    world.run();
    let (things, _) = world.members(8);
    let hellos = things.iter().map(|thing| Hello::of(thing, "c")).collect();
    let storm = Storm::begin(world.mqtt(), hellos);
    storm.wait(300);
    let (slot, from) = (cluster.slot(STREAM), cluster.home(STREAM));
    let to = (from + 1) % 3;
    wait_for("the relay", || {
        (cluster.nodes[from].1.len(STREAM) > 0).then_some(())
    });
    // In the middle of it.
    cluster.move_slot(slot, from, to);
    storm.wait(600);
    storm.end();
    let journal = wait_for("all to leave", || {
        let left = world.json(&["presence", "--limit", "1"])["total"] == 0;
        left.then(|| world.events())
    });
    let redis = &cluster.nodes[to].1;
    wait_for("the relay", || {
        (redis.len(STREAM) >= journal.len()).then_some(())
    });
    assert!(redis.stream(STREAM) == journal, "stream and journal differ");
    assert!(check_pairs(&journal) >= 600);
    let home = &cluster.nodes[cluster.home("mainflux.things")].1;
    let things = world.stream("things");
    wait_for("the things", || {
        (home.len("mainflux.things") >= things.len()).then_some(())
    });
    world.tell(&["check-presence", "--redis", &cluster.url()]);
    let told = world.tell(&["--json", "events", "--redis", &cluster.url()]);
    assert_eq!(told.lines().count(), journal.len());

    // Another instance is in the same slot.
    let other = World::with(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_INSTANCE", "other"),
        ("ROLLCALL_REDIS__URL", &cluster.url()),
    ]);
    let thing = other.thing("lamp");
    introduce(&thing, &world);
    let mut older = other.client(Hello::of(&thing, "c").five());
    let mut newer = world.client(Hello::of(&thing, "c").five());
    older.expect_disconnect(0x8E);
    newer.expect_silence();
    world.tell(&["check-presence", "--redis", &cluster.url()]);
}
