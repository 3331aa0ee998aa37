//! gRPC and REST over TLS: parts of rollcall that prove to each other who they are, and what they say of each other if
//! they do not.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rcgen::{CertificateParams, date_time_ymd};
use serde_json::Value;
use tempfile::TempDir;

use crate::authority::{Authority, Pair};
use crate::client::{Client, Hello};
use crate::world::{Thing, World, wait_for};

fn text(path: &Path) -> String {
    path.to_str().expect("text").to_owned()
}

/// Those who vouch for servers and clients, in a folder.
struct Trust {
    folder: TempDir,
    root: Authority,
}

impl Trust {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Authority::new(folder.path(), "root");
        Self { folder, root }
    }

    /// Everything for a server of this name that others have to prove themselves to, as it has to them.
    fn mutual(&self, pair: &Pair) -> Vec<(String, String)> {
        let mut settings = Vec::new();
        let mut set = |name: &str, value: &Path| {
            settings.push((format!("ROLLCALL_GRPC__{name}"), text(value)));
        };
        set("TLS__CERTIFICATE", &pair.certificate);
        set("TLS__KEY", &pair.key);
        set("TLS__CLIENT_CA", &self.root.file());
        set("CLIENT__CA", &self.root.file());
        set("CLIENT__CERTIFICATE", &pair.certificate);
        set("CLIENT__KEY", &pair.key);
        settings
    }

    fn start(&self, role: &'static str, serial: u64, more: &[(&str, &str)]) -> World {
        let settings = self.mutual(&self.root.server("localhost", serial));
        let settings = settings.iter().map(|(name, value)| (&**name, &**value));
        let settings: Vec<(&str, &str)> = settings.chain(more.iter().copied()).collect();
        World::alone(role, &settings)
    }

    /// A client certificate that was good until 2020.
    fn expired(&self, serial: u64) -> Pair {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_after = date_time_ymd(2020, 1, 1);
        self.root.issue(params, "expired", serial)
    }
}

/// Runs a command with nothing but these settings.
fn run(settings: &[(String, String)], server: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    command.args(["--data", "/nonexistent", "--json", "--server", server]);
    command.envs(settings.iter().cloned()).args(arguments);
    command.output().expect("runs")
}

fn told(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn field(value: &Value, name: &str) -> String {
    value[name].as_str().expect("text").to_owned()
}

#[test]
fn parts_that_run_alone_ask_each_other_over_mutual_tls() {
    let trust = Trust::new();
    let rest = trust.root.server("localhost", 9);
    let users = trust.start("users", 1, &[]);
    let users_url = users.server();
    let asks_users = ("ROLLCALL_USERS__AUTHORITY", &*users_url);
    let (certificate, key) = (text(&rest.certificate), text(&rest.key));
    let ca = text(&trust.root.file());
    let over_tls = [
        ("ROLLCALL_HTTP__TLS__CERTIFICATE", &*certificate),
        ("ROLLCALL_HTTP__TLS__KEY", &*key),
        ("ROLLCALL_HTTP__TLS__CLIENT_CA", &*ca),
    ];
    let things = trust.start("things", 2, &[&[asks_users][..], &over_tls].concat());
    let things_url = things.server();
    let asks_things = ("ROLLCALL_THINGS__URL", &*things_url);
    let bootstrap = trust.start("bootstrap", 3, &[asks_users, asks_things]);
    let front = trust.start("mqtt", 4, &[("ROLLCALL_THINGS__AUTHORITY", &things_url)]);

    // Somebody with a certificate signs in once, for all of them.
    let person = trust.root.server("somebody", 5);
    let mut settings = trust.mutual(&person);
    settings.retain(|(name, _)| name.starts_with("ROLLCALL_GRPC__CLIENT__"));
    settings.push(("ROLLCALL_USERS__AUTHORITY".to_owned(), users_url.clone()));
    let home = users.folder().join("data/secrets");
    settings.push(("XDG_CONFIG_HOME".to_owned(), text(&home)));
    let banner = users.banner().join("\n");
    let (_, password) = banner.split_once("password ").expect("a first start");
    let file = home.join("password");
    let password = password.split_whitespace().next().expect("one");
    fs::write(&file, password).expect("written");
    let login = ["login", "admin@localhost", "--password-file", &text(&file)];
    told(&run(&settings, &users_url, &login));

    let lamp = told(&run(&settings, &things_url, &["things", "create", "lamp"]));
    let channel = told(&run(
        &settings,
        &things_url,
        &["channels", "create", "room"],
    ));
    let channel = field(&channel, "id");
    let thing = Thing {
        id: field(&lamp, "id"),
        key: field(&lamp, "key"),
    };
    for world in [&users, &things, &bootstrap, &front] {
        world.secrets.add(&*thing.key);
        world.secrets.add(password);
    }
    let connect = ["connect", &thing.id, &channel];
    assert!(run(&settings, &things_url, &connect).status.success());
    // Bootstrap asks the things service in the name of the caller.
    let create = [
        "configs",
        "create",
        "SN-1",
        "--thing",
        &thing.id,
        "--channel",
        &channel,
    ];
    let config = told(&run(&settings, &bootstrap.server(), &create));
    bootstrap.secrets.add_from(&config);
    let topic = format!("channels/{channel}/messages");
    let mut client = front.client(Hello::of(&thing, "c"));
    assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);
    assert_eq!(client.publish(&topic, b"on", 1), 0);
    assert_eq!(client.take().payload, b"on");

    // REST: an independent client, with a certificate and without.
    let curl = |site: &str, more: &[&str]| {
        let port = things.listener(site).rsplit(':').next().expect("a port");
        let url = format!("https://localhost:{port}/{}", more[0]);
        let mut curl = Command::new("curl");
        curl.args(["-s", "-S", "--cacert", &ca, &url])
            .args(&more[1..]);
        curl.output().expect("curl")
    };
    let shown = [
        "--cert",
        &text(&person.certificate),
        "--key",
        &text(&person.key),
    ];
    let kept = fs::read(home.join("rollcall/credentials.json")).expect("a file");
    let kept: Value = serde_json::from_slice(&kept).expect("JSON");
    let token = field(&kept[&users_url], "access_token");
    let bearer = format!("Authorization: Bearer {token}");
    let listed = curl(
        "http.things",
        &[&["things", "-H", &bearer][..], &shown].concat(),
    );
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed["total"], 1);
    let pages = curl("http", &[&["readyz"][..], &shown].concat());
    assert!(String::from_utf8_lossy(&pages.stdout).contains("true"));
    let without = curl("http.things", &["things", "-H", &bearer]);
    assert!(!without.status.success() && without.stdout.is_empty());
    let counted = wait_for("the count", || {
        let metrics = curl("http", &[&["metrics"][..], &shown].concat());
        let metrics = String::from_utf8_lossy(&metrics.stdout).into_owned();
        let counted = metrics.contains("rollcall_http_handshake_failures_total 1");
        counted.then_some(metrics)
    });
    assert!(counted.contains("rollcall_grpc_connections"), "{counted}");
}

#[test]
fn what_is_wrong_between_client_and_server_is_told_with_what_to_do() {
    let trust = Trust::new();
    let stranger = Authority::new(trust.folder.path(), "stranger");
    let server = trust.root.server("localhost", 1);
    let mut home = World::prepared(&[]);
    for (name, value) in trust.mutual(&server) {
        home.set(&name, &value);
    }
    let (sound, revoked) = (trust.root.client("a", 2), trust.root.client("b", 3));
    let revocations = text(&trust.root.revoke(&[&revoked]));
    home.set("ROLLCALL_GRPC__TLS__CLIENT_CRL", &revocations);
    home.run();
    let address = home.server();
    let port = address.rsplit(':').next().expect("a port").to_owned();
    let lists = |server: &str, ca: &Path, shown: Option<&Pair>, more: &[(&str, &str)]| {
        let mut settings = vec![("ROLLCALL_GRPC__CLIENT__CA".to_owned(), text(ca))];
        for (name, value) in more {
            settings.push(((*name).to_owned(), (*value).to_owned()));
        }
        let token = text(&home.folder().join("data/secrets/admin.token"));
        let mut arguments = vec!["--token-file".to_owned(), token];
        if let Some(pair) = shown {
            arguments.extend(["--tls-certificate".to_owned(), text(&pair.certificate)]);
            arguments.extend(["--tls-key".to_owned(), text(&pair.key)]);
        }
        arguments.extend(["things", "list"].map(str::to_owned));
        let arguments: Vec<&str> = arguments.iter().map(|it| &**it).collect();
        let output = run(&settings, server, &arguments);
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    };
    let root = trust.root.file();
    assert_eq!(lists(&address, &root, Some(&sound), &[]), Ok(()));
    let by_number = format!("https://127.0.0.1:{port}");
    let named = ("ROLLCALL_GRPC__CLIENT__SERVER_NAME", "localhost");
    assert_eq!(lists(&by_number, &root, Some(&sound), &[named]), Ok(()));
    // On the machine of the server it is the configuration that says where that is.
    let here = |listen: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
        command.envs(trust.mutual(&server));
        command.env("ROLLCALL_GRPC__LISTEN", format!("{listen}:{port}"));
        command.arg("--data").arg(home.folder().join("data"));
        command.args(more).args(["things", "list"]);
        let output = command.output().expect("runs");
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    };
    for listen in ["127.0.0.1", "0.0.0.0"] {
        let error = here(listen, &[]).expect_err("another name");
        assert!(error.contains("not for 127.0.0.1"), "{error}");
        assert!(error.contains("--tls-name"), "{error}");
        assert_eq!(here(listen, &["--tls-name", "localhost"]), Ok(()));
    }
    let pages = format!("https://{}", home.http_address());
    for (server, ca, shown, words) in [
        (
            &*address,
            stranger.file(),
            Some(&sound),
            "see grpc.client.ca",
        ),
        (&address, root.clone(), None, "set grpc.client.certificate"),
        (&by_number, root.clone(), Some(&sound), "not for 127.0.0.1"),
        (
            &address,
            root.clone(),
            Some(&stranger.client("c", 4)),
            "see grpc.client.certificate",
        ),
        (
            &address,
            root.clone(),
            Some(&trust.expired(5)),
            "has expired",
        ),
        (&address, root.clone(), Some(&revoked), "is revoked"),
        (
            &format!("localhost:{port}"),
            root.clone(),
            None,
            "write https://",
        ),
        (&pages, root.clone(), None, "does not speak TLS"),
        (
            &address,
            root.join("none"),
            None,
            "grpc.client: cannot read",
        ),
    ] {
        let error = lists(server, &ca, shown, &[]).expect_err(words);
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(home.counter("rollcall_grpc_handshake_failures_total", "") >= 5.0);

    // The certificate of the server runs out, and is replaced.
    let replace = |pair: &Pair| {
        fs::copy(&pair.certificate, &server.certificate).expect("copied");
        fs::copy(&pair.key, &server.key).expect("copied");
        home.signal("HUP");
    };
    replace(&trust.expired(6));
    wait_for("the old certificate", || {
        let error = lists(&address, &root, Some(&sound), &[]).err()?;
        error.contains("its certificate has expired").then_some(())
    });
    replace(&trust.root.server("localhost", 7));
    wait_for("the new certificate", || {
        lists(&address, &root, Some(&sound), &[]).ok()
    });
    // However often it is told to.
    assert_eq!(home.json(&["reload"])["reloaded"][0], "grpc");
    assert!(home.has_ended().is_none());
}

#[test]
fn a_front_that_does_not_trust_its_things_service_loses_nothing_and_recovers() {
    let trust = Trust::new();
    let stranger = Authority::new(trust.folder.path(), "stranger");
    let home = trust.start("up", 1, &[]);
    let (thing, channel) = home.member();
    let ca = trust.folder.path().join("trusted.pem");
    fs::copy(stranger.file(), &ca).expect("copied");
    let pair = trust.root.client("front", 2);
    let front = World::alone(
        "mqtt",
        &[
            ("ROLLCALL_THINGS__AUTHORITY", &home.server()),
            ("ROLLCALL_GRPC__CLIENT__CA", &text(&ca)),
            (
                "ROLLCALL_GRPC__CLIENT__CERTIFICATE",
                &text(&pair.certificate),
            ),
            ("ROLLCALL_GRPC__CLIENT__KEY", &text(&pair.key)),
            // In clear where others can listen: it starts, and says so.
            ("ROLLCALL_GRPC__LISTEN", "0.0.0.0:0"),
            ("ROLLCALL_USERS__AUTHORITY", "http://users.invalid:7000"),
        ],
    );
    let log = front.log_text();
    for key in ["grpc.listen", "users.authority"] {
        let warned = |line: &str| line.contains("go in clear") && line.contains(key);
        assert!(log.lines().any(warned), "{log}");
    }
    for n in 0..3 {
        let hello = Hello::of(&thing, &n.to_string()).five();
        let (_, connack) = Client::connect(front.mqtt(), hello);
        assert_eq!(connack.code, 0x88, "it is not the client who is wrong");
    }
    let log = front.log_text();
    let told = log
        .lines()
        .filter(|line| line.contains("see grpc.client.ca"));
    assert!(told.count() >= 1, "{log}");
    assert!(front.events().is_empty());

    fs::copy(trust.root.file(), &ca).expect("copied");
    let mut client = wait_for("the front to trust it", || {
        let (client, connack) = Client::connect(front.mqtt(), Hello::of(&thing, "c").five());
        (connack.code == 0).then_some(client)
    });
    let topic = format!("channels/{channel}/messages");
    assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);
    // What has begun goes on.
    fs::copy(stranger.file(), &ca).expect("copied");
    assert_eq!(client.publish(&topic, b"still here", 1), 0);
    assert_eq!(client.take().payload, b"still here");
    assert_eq!(front.wait_events(1)[0]["event_type"], "connect");
}
