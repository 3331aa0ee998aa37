//! Several servers that speak TLS alone, with who shows a certificate: behind sentinels, and in a cluster.

use std::fs;
use std::path::Path;

use crate::authority::{Authority, Pair};
use crate::redis_cluster::Cluster;
use crate::redis_failover::{Watched, expect_equal, storm};
use crate::redis_guarded::rights;
use crate::redis_server::RedisServer;
use crate::world::{World, wait_for};

const STREAM: &str = "mainflux.mqtt";

/// What servers and their clients need.
struct Papers {
    folder: tempfile::TempDir,
    authority: Authority,
    server: Pair,
    client: Pair,
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Papers {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new(folder.path(), "root");
        // Sentinels and nodes tell addresses.
        let server = authority.server("127.0.0.1", 1);
        let client = authority.client("front", 2);
        Self {
            folder,
            authority,
            server,
            client,
        }
    }

    fn listen(&self, port: u16) -> Vec<String> {
        let (authority, port) = (text(&self.authority.file()), port.to_string());
        let (certificate, key) = (text(&self.server.certificate), text(&self.server.key));
        let arguments = [
            ("--port", "0"),
            ("--tls-port", &port),
            ("--tls-ca-cert-file", &authority),
            ("--tls-cert-file", &certificate),
            ("--tls-key-file", &key),
            ("--tls-auth-clients", "yes"),
            ("--tls-replication", "yes"),
            ("--tls-cluster", "yes"),
        ];
        let words = arguments
            .into_iter()
            .flat_map(|(name, value)| [name, value]);
        words.map(str::to_owned).collect()
    }

    fn query(&self) -> String {
        let Self {
            authority, client, ..
        } = self;
        format!(
            "ca_file={}&cert_file={}&key_file={}",
            text(&authority.file()),
            text(&client.certificate),
            text(&client.key)
        )
    }

    fn write(&self, name: &str, content: &str) -> String {
        let file = self.folder.path().join(name);
        fs::write(&file, content).expect("written");
        text(&file)
    }
}

fn world(url: &str) -> World {
    World::with(&[
        ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ("ROLLCALL_REDIS__URL", url),
        ("ROLLCALL_REDIS__RETRY_MAX", "200ms"),
        ("ROLLCALL_REDIS__CONNECT_TIMEOUT", "500ms"),
        ("ROLLCALL_REDIS__RESPONSE_TIMEOUT", "1s"),
        ("ROLLCALL_REDIS__BATCH", "16"),
    ])
}

#[test]
fn sentinels_that_speak_tls_name_a_master_that_does() {
    let papers = Papers::new();
    let mut watched = Watched::with(&|port| papers.listen(port));
    let password = papers.write("sentinel-password", "watch");
    let url = format!(
        "rediss+sentinel://watcher:secret@{}/front?{}&sentinel_password_file={password}",
        watched.hosts(),
        papers.query()
    );
    let world = world(&url);
    let (storm, settled) = storm(&world);
    storm.wait(200);
    wait_for("the relay", || {
        (watched.master.len(STREAM) > 100).then_some(())
    });
    watched.master.kill();
    storm.wait(400);
    watched.wait_for_promotion();
    storm.wait(600);
    storm.end();
    drop(settled);
    expect_equal(&world, &watched.replica);
    world.tell(&["check-presence", "--redis", &url]);
}

#[test]
fn a_cluster_that_speaks_tls_loses_nothing_when_masters_are_killed_or_replaced() {
    let papers = Papers::new();
    let mut cluster = Cluster::with(6, |port| papers.listen(port));
    // With exactly the rights that are documented.
    let rights = rights();
    let admit = |node: &RedisServer| {
        let rights: Vec<&str> = rights.iter().map(String::as_str).collect();
        node.command::<String>(&[&["ACL", "SETUSER"], &rights[..]].concat());
    };
    cluster.nodes.iter().for_each(|(_, node)| admit(node));
    let password = papers.write("password", "change-me\n");
    let url = format!(
        "rediss+cluster://rollcall@{}?{}&password_file={password}",
        cluster.hosts(),
        papers.query()
    );
    let world = world(&url);
    let (storm, settled) = storm(&world);
    storm.wait(200);
    let master = cluster.home(STREAM);
    let replica = master + 3;
    wait_for("the relay", || {
        (cluster.nodes[master].1.len(STREAM) > 100).then_some(())
    });
    // In the middle of a batch.
    cluster.nodes[master].1.kill();
    storm.wait(400);
    cluster.wait_for_role(replica, "master");
    storm.wait(600);
    // It comes back, and takes over in good order.
    cluster.nodes[master].1.run();
    admit(&cluster.nodes[master].1);
    cluster.wait_for_role(master, "slave");
    cluster.promote(master);
    storm.wait(900);
    storm.end();
    drop(settled);
    expect_equal(&world, &cluster.nodes[master].1);
    world.tell(&["check-presence", "--redis", &url]);
    assert_eq!(world.json(&["presence", "--all"])["total"], 0);
}
