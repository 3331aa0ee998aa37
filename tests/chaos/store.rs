//! A Redis and its replica, behind links of their own.

use tokio::runtime::Handle;

use crate::proxy::{Cut, Link, Weather};
use crate::redis_server::{RedisServer, free_port};
use crate::world::wait_for;

pub(crate) struct Store {
    servers: [Server; 2],
    master: usize,
    /// How the replica reaches its master.
    replication: Link,
}

struct Server {
    redis: RedisServer,
    port: u16,
}

impl Store {
    pub(crate) fn start(runtime: &Handle) -> Self {
        let servers = [free_port(), free_port()].map(|port| {
            let number = port.to_string();
            let arguments = [
                "--port",
                &number,
                "--bind",
                "127.0.0.1",
                "--protected-mode",
                "no",
            ];
            let more = [
                "--repl-diskless-sync-delay",
                "0",
                "--maxmemory-policy",
                "noeviction",
            ];
            // What is deleted and made again must not be mistaken for what a replica has.
            let redis = RedisServer::with(&[&arguments[..], &more].concat());
            Server { redis, port }
        });
        let store = Self {
            servers,
            master: 0,
            replication: Link::open(runtime, [127, 0, 0, 1]),
        };
        store
            .replication
            .lead_to(Some(([127, 0, 0, 1], store.port()).into()));
        store.replicate();
        store
    }

    fn replicate(&self) {
        let port = self.replication.address().port().to_string();
        let replica = &self.servers[1 - self.master].redis;
        replica.command::<String>(&["REPLICAOF", "127.0.0.1", &port]);
        self.wait_for_replica();
    }

    /// Waits until the replica follows.
    pub(crate) fn wait_for_replica(&self) {
        wait_for("replication", || {
            let info: String = self.servers[1 - self.master]
                .redis
                .command(&["INFO", "replication"]);
            let follows = info.contains("master_link_status:up");
            // Asked of the master, that everything before has arrived.
            (follows && self.redis().command::<u64>(&["WAIT", "1", "500"]) == 1).then_some(())
        });
    }

    pub(crate) fn redis(&self) -> &RedisServer {
        &self.servers[self.master].redis
    }

    pub(crate) fn redis_mut(&mut self) -> &mut RedisServer {
        &mut self.servers[self.master].redis
    }

    pub(crate) fn port(&self) -> u16 {
        self.servers[self.master].port
    }

    /// From here on the replica gets nothing.
    pub(crate) fn fall_behind(&self) {
        self.replication.set(Weather::Closed);
        self.replication.cut(Cut::Both);
    }

    /// Kills the master and makes the replica the master. The one that was killed is down.
    pub(crate) fn fail_over(&mut self) {
        self.redis_mut().kill();
        self.master = 1 - self.master;
        self.redis().command::<String>(&["REPLICAOF", "NO", "ONE"]);
    }

    /// Starts the one that was killed, as the replica.
    pub(crate) fn complete(&mut self) {
        let far = ([127, 0, 0, 1], self.port()).into();
        self.replication.lead_to(Some(far));
        self.replication.set(Weather::Clear);
        self.servers[1 - self.master].redis.run();
        self.replicate();
    }
}
