//! A running rollcall in a folder of its own, and what a test does to it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, Hello};
use crate::leaks::{self, Place, Secrets};
use crate::postgres_server;
use crate::redis_server;
use crate::rest;

const PROGRAM: &str = env!("CARGO_BIN_EXE_rollcall");
/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the program on port 0 everywhere, and stops it when dropped.
pub(crate) struct World {
    folder: TempDir,
    /// What is run: `up`, or a part.
    role: &'static str,
    environment: Vec<(String, String)>,
    flags: Vec<String>,
    /// What runs the program, such as `ip netns exec NAME`; nothing runs it as it is.
    wrapper: Vec<String>,
    files: Option<u32>,
    file_size: Option<u64>,
    running: Option<Running>,
    starts: AtomicU32,
    pub(crate) secrets: Secrets,
    /// What earlier servers said after they were ready.
    said: Vec<u8>,
}

struct Running {
    process: Child,
    /// The `ready` line.
    ready: String,
    mqtt: Vec<SocketAddr>,
    grpc: String,
    http: String,
    /// What was said before `ready`.
    banner: Vec<String>,
    /// Reads what is said after it.
    saying: JoinHandle<Vec<u8>>,
}

/// A thing and the key that proves it.
#[derive(Clone, Debug)]
pub(crate) struct Thing {
    pub(crate) id: String,
    pub(crate) key: String,
}

/// The fields of an event.
pub(crate) type Event = BTreeMap<String, String>;

impl World {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With these environment variables.
    pub(crate) fn with(environment: &[(&str, &str)]) -> Self {
        let mut world = Self::prepared(environment);
        world.run();
        world
    }

    /// Not started yet.
    pub(crate) fn prepared(environment: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            role: "up",
            environment: environment.iter().map(own).collect(),
            flags: Vec::new(),
            wrapper: Vec::new(),
            files: None,
            file_size: None,
            running: None,
            starts: AtomicU32::new(0),
            secrets: Secrets::default(),
            said: Vec::new(),
        }
    }

    /// A part that runs alone.
    pub(crate) fn alone(role: &'static str, environment: &[(&str, &str)]) -> Self {
        let mut world = Self::prepared(environment);
        world.role = role;
        world.run();
        world
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Adds an argument behind `up`, or the part.
    pub(crate) fn flag(&mut self, flag: &str) {
        self.flags.push(flag.to_owned());
    }

    /// Has the server run by a command, which must become it.
    #[allow(dead_code, reason = "for tests/chaos")]
    pub(crate) fn run_by(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|&it| it.to_owned()).collect();
    }

    /// Lets the server open so many files.
    pub(crate) fn limit_files(&mut self, files: u32) {
        self.files = Some(files);
    }

    /// Lets no file of the server grow beyond so many bytes, from its next start on.
    pub(crate) fn limit_file_size(&mut self, bytes: Option<u64>) {
        self.file_size = bytes;
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder
            .path()
            .join(format!("log.{}", self.starts.load(Ordering::Relaxed)))
    }

    /// The command of the server, to be run.
    pub(crate) fn up(&self) -> Command {
        let mut command = match (self.files, self.file_size) {
            (_, Some(bytes)) => {
                // A signal would end the process where a full disk makes a write fail.
                let mut command = Command::new("sh");
                let run = format!("trap '' XFSZ; exec prlimit --fsize={bytes}:unlimited \"$@\"");
                command.args(["-c", &run, "sh", PROGRAM]);
                command
            }
            (None, None) => match &*self.wrapper {
                [] => Command::new(PROGRAM),
                [first, rest @ ..] => {
                    let mut command = Command::new(first);
                    command.args(rest).arg(PROGRAM);
                    command
                }
            },
            (Some(files), None) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={files}")).arg(PROGRAM);
                command
            }
        };
        command
            .arg(self.role)
            .arg("--data")
            .arg(self.data())
            .args(&self.flags);
        for part in ["MQTT", "GRPC", "HTTP"] {
            command.env(format!("ROLLCALL_{part}__LISTEN"), "127.0.0.1:0");
        }
        command.env("ROLLCALL_INSTANCE", "front-1");
        command.env("ROLLCALL_LOG__FILTER", "info,rollcall=trace");
        command.envs(self.environment.iter().cloned());
        command
    }

    /// What the server has logged since it was started last.
    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(self.log()).expect("a log")
    }

    pub(crate) fn run(&mut self) {
        self.starts.fetch_add(1, Ordering::Relaxed);
        let log = File::create(self.log()).expect("a log");
        let mut process = self
            .up()
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let mut out = BufReader::new(process.stdout.take().expect("piped"));
        let mut banner = Vec::new();
        let mut line = String::new();
        while out.read_line(&mut line).expect("text") > 0 {
            let said = std::mem::take(&mut line);
            let Some(ready) = said.trim_end().strip_prefix("ready ") else {
                banner.push(said.trim_end_matches('\n').to_owned());
                continue;
            };
            self.secrets.add_banner(&banner);
            self.secrets.add_folder(&self.data().join("secrets"));
            let value = |name: &str| {
                let found = ready.split(' ').find_map(|pair| pair.strip_prefix(name));
                found.unwrap_or_default().to_owned()
            };
            self.running = Some(Running {
                process,
                mqtt: value("mqtt=")
                    .split(',')
                    .filter_map(|address| address.parse().ok())
                    .collect(),
                grpc: value("grpc="),
                http: value("http="),
                banner,
                saying: thread::spawn(move || {
                    let mut rest = Vec::new();
                    let _ = out.read_to_end(&mut rest);
                    rest
                }),
                ready: ready.to_owned(),
            });
            return;
        }
        let status = process.wait().expect("a child");
        panic!("the program ended before it was ready: {status}");
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("running")
    }

    /// The first address of the front.
    pub(crate) fn mqtt(&self) -> SocketAddr {
        self.listeners()[0]
    }

    pub(crate) fn listeners(&self) -> &[SocketAddr] {
        &self.running().mqtt
    }

    /// Where the listener of this name listens, as the `ready` line says.
    pub(crate) fn listener(&self, name: &str) -> &str {
        let ready = &self.running().ready;
        let found = ready.split(' ').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key == name).then_some(value)
        });
        found.unwrap_or_else(|| panic!("no {name} in {ready}"))
    }

    pub(crate) fn ready(&self) -> &str {
        &self.running().ready
    }

    pub(crate) fn grpc(&self) -> &str {
        &self.running().grpc
    }

    pub(crate) fn http_address(&self) -> &str {
        &self.running().http
    }

    pub(crate) fn banner(&self) -> &[String] {
        &self.running().banner
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running().process.id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        kill(signal, self.pid());
    }

    /// How it ended, if it has.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        let running = self.running.as_mut().expect("was started");
        running.process.try_wait().expect("a child")
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(&mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        let mut running = self.running.take().expect("running");
        let status = wait_for("the program to end", || {
            running.process.try_wait().expect("a child")
        });
        self.said.extend(running.saying.join().expect("read"));
        status
    }

    /// How the program ended, if it has.
    pub(crate) fn try_end(&mut self) -> Option<ExitStatus> {
        let running = self.running.as_mut().expect("running");
        let status = running.process.try_wait().expect("a child")?;
        self.running = None;
        Some(status)
    }

    /// Stops the program the way the power fails, and starts it again.
    pub(crate) fn crash_and_restart(&mut self) {
        self.end("KILL");
        self.run();
    }

    /// Runs the program without a server.
    pub(crate) fn program(arguments: &[&str]) -> Output {
        let output = Command::new(PROGRAM).args(arguments).output();
        output.expect("the program runs")
    }

    /// Runs a command of the command line.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--data").arg(self.data());
        command.arg("--server").arg(self.server());
        // Whom to trust, and what to show.
        let environment = self.environment.iter().cloned();
        command.envs(environment.filter(|(name, _)| name.starts_with("ROLLCALL_GRPC__CLIENT__")));
        command.args(arguments);
        command
    }

    /// Where it serves gRPC, as a client writes it.
    pub(crate) fn server(&self) -> String {
        let grpc = &self.running().grpc;
        let mut environment = self.environment.iter();
        match environment.any(|(name, _)| name == "ROLLCALL_GRPC__TLS__CERTIFICATE") {
            true => format!(
                "https://localhost:{}",
                grpc.rsplit(':').next().expect("a port")
            ),
            false => grpc.clone(),
        }
    }

    /// What a command that succeeds prints.
    pub(crate) fn tell(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.tell(&[&["--json"], arguments].concat());
        let value = serde_json::from_str(&text);
        let value = value.unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"));
        self.secrets.add_from(&value);
        value
    }

    /// What a command that fails says.
    pub(crate) fn fail(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        assert!(!output.status.success(), "{arguments:?} must fail");
        String::from_utf8(output.stderr).expect("text")
    }

    pub(crate) fn thing(&self, name: &str) -> Thing {
        let thing = self.json(&["things", "create", name]);
        let text = |name: &str| thing[name].as_str().expect("text").to_owned();
        Thing {
            id: text("id"),
            key: text("key"),
        }
    }

    pub(crate) fn channel(&self) -> String {
        self.json(&["channels", "create"])["id"]
            .as_str()
            .expect("text")
            .to_owned()
    }

    pub(crate) fn grant(&self, thing: &Thing, channel: &str, actions: &str) {
        self.tell(&["connect", &thing.id, channel, "--actions", actions]);
    }

    /// A thing that may do everything on a channel, and that channel.
    pub(crate) fn member(&self) -> (Thing, String) {
        let (thing, channel) = (self.thing("lamp"), self.channel());
        self.grant(&thing, &channel, "m_read,m_write");
        (thing, channel)
    }

    /// Many members of one channel.
    pub(crate) fn members(&self, count: usize) -> (Vec<Thing>, String) {
        let csv = self.folder.path().join("things.csv");
        let path = csv.to_str().expect("text");
        self.tell(&[
            "things",
            "create",
            "many",
            "--count",
            &count.to_string(),
            "--csv",
            path,
        ]);
        let text = fs::read_to_string(&csv).expect("a file");
        fs::remove_file(csv).expect("removed");
        let mut channel = String::new();
        let things = text.lines().skip(1).map(|line| {
            let parts: Vec<&str> = line.split(',').collect();
            parts[2].clone_into(&mut channel);
            self.secrets.add(parts[1]);
            Thing {
                id: parts[0].to_owned(),
                key: parts[1].to_owned(),
            }
        });
        let things: Vec<Thing> = things.collect();
        assert_eq!(things.len(), count);
        (things, channel)
    }

    /// Connects and expects to be let in.
    pub(crate) fn client(&self, hello: Hello) -> Client {
        let (client, connack) = Client::connect(self.mqtt(), hello);
        assert_eq!(connack.code, 0, "{connack:?}");
        client
    }

    /// All presence events, from the journal.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.stream("mqtt")
    }

    pub(crate) fn stream(&self, stream: &str) -> Vec<Event> {
        let text = self.tell(&["--json", "events", "--stream", stream]);
        let events = text.lines().map(|line| {
            let mut event: Value = serde_json::from_str(line).expect("JSON");
            serde_json::from_value(event["fields"].take()).expect("fields of text")
        });
        events.collect()
    }

    /// Waits until there are as many presence events.
    pub(crate) fn wait_events(&self, count: usize) -> Vec<Event> {
        let what = format!("{count} events");
        let events = wait_for(&what, || {
            Some(self.events()).filter(|events| events.len() >= count)
        });
        assert_eq!(events.len(), count, "{events:#?}");
        events
    }

    /// The value of a counter, summed over its labels that contain `label`.
    pub(crate) fn counter(&self, name: &str, label: &str) -> f64 {
        let (_, body) = self.http("/metrics");
        let lines = body
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(label));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Status and body of a page.
    pub(crate) fn http(&self, path: &str) -> (u16, String) {
        let reply = rest::send(self.http_address(), &format!("GET {path}"), &[], b"");
        (reply.status, reply.body)
    }
}

impl World {
    /// Everything this server leaves behind: logs, databases, streams, and what it said once it was ready.
    fn left_behind(&self) -> Vec<Place> {
        let secrets = self.data().join("secrets").display().to_string();
        let mut places = leaks::files(self.folder.path());
        // Mails have tokens: that is what they are for.
        let mails = self.data().join("mails").display().to_string();
        places.retain(|(path, _)| !path.starts_with(&secrets) && !path.starts_with(&mails));
        places.push(("stdout".to_owned(), self.said.clone()));
        let urls = self.environment.iter();
        for (_, url) in urls.filter(|(name, _)| name == "ROLLCALL_REDIS__URL") {
            places.extend(redis_server::dump(url));
        }
        let urls = self.environment.iter();
        for (_, url) in urls.filter(|(name, _)| name == "ROLLCALL_STORAGE__URL") {
            places.push(("PostgreSQL".to_owned(), postgres_server::dump(url)));
        }
        places
    }

    /// Where secrets are that were used here.
    pub(crate) fn find_leaks(&self) -> Vec<String> {
        self.secrets.find_in(&self.left_behind())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.process.kill();
            let _ = running.process.wait();
            self.said.extend(running.saying.join().unwrap_or_default());
        }
        if thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            eprintln!("--- log of the server\n{log}---");
            return;
        }
        let leaks = self.find_leaks();
        assert!(
            leaks.is_empty(),
            "secrets where there must be none: {leaks:#?}"
        );
    }
}

pub(crate) fn kill(signal: &str, pid: u32) {
    let pid = pid.to_string();
    let status = Command::new("kill")
        .args(["-s", signal, &pid])
        .status()
        .expect("kill");
    assert!(status.success());
}

/// Asks until there is an answer.
pub(crate) fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    try_for(ask).unwrap_or_else(|| panic!("waited too long for {what}"))
}

/// Asks until there is an answer, or no patience is left.
pub(crate) fn try_for<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() >= end {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `connect` and `disconnect` events in pairs: each session arrives once, then leaves once, and time goes on.
/// Returns how many sessions there were. Sessions are told apart by `session_id`, so events are extended.
pub(crate) fn check_pairs(events: &[Event]) -> usize {
    let mut open = std::collections::HashSet::new();
    let mut closed = std::collections::HashSet::new();
    let mut last = 0;
    for event in events {
        let at: u64 = event["occurred_at"].parse().expect("nanoseconds");
        assert!(at > last, "occurred_at must grow: {last} then {event:?}");
        last = at;
        let session = event["session_id"].clone();
        match event["event_type"].as_str() {
            "connect" => {
                assert!(!closed.contains(&session), "came back: {event:?}");
                assert!(open.insert(session), "came twice: {event:?}");
            }
            "disconnect" => {
                assert!(open.remove(&session), "left without having come: {event:?}");
                closed.insert(session);
            }
            other => panic!("unknown event {other}"),
        }
    }
    assert!(open.is_empty(), "still here: {open:?}");
    closed.len()
}
