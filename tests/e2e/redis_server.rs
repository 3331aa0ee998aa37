//! A real Redis of a test's own.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{Commands, Connection, RedisResult};
use tempfile::TempDir;

use crate::leaks::Place;
use crate::world::{Event, kill, wait_for};

/// The server that tests run: another one than usual, if TEST_REDIS names it.
pub(crate) fn program() -> PathBuf {
    let named = std::env::var_os("TEST_REDIS");
    named.unwrap_or_else(|| "redis-server".into()).into()
}

/// On a unix socket in a temporary folder; everything is kept through restarts.
pub(crate) struct RedisServer {
    folder: TempDir,
    program: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl RedisServer {
    /// Not started yet.
    pub(crate) fn prepared() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            program: program(),
            arguments: Vec::new(),
            process: None,
        }
    }

    /// One that is told more: these arguments overrule the usual ones.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let mut server = Self::prepared();
        server.arguments = arguments.iter().map(|&it| it.to_owned()).collect();
        server.run();
        server
    }

    /// One that tells by itself what a producer has appended, if there is any (see tests/run).
    pub(crate) fn guarding() -> Option<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/redis-8.6/redis-server");
        if !program.exists() {
            eprintln!(
                "LEFT OUT, since there is no {}: see tests/run",
                program.display()
            );
            return None;
        }
        let mut server = Self::prepared();
        server.program = program;
        server.run();
        Some(server)
    }

    pub(crate) fn start() -> Self {
        let mut server = Self::prepared();
        server.run();
        server
    }

    pub(crate) fn run(&mut self) {
        let folder = self.folder.path();
        let process = Command::new(&self.program)
            .args(["--port", "0", "--unixsocket", "redis.sock", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(folder)
            .args(&self.arguments)
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed: see tests/run");
        self.process = Some(process);
        wait_for("redis", || self.try_command::<String>(&["PING"]).ok());
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "redis+unix://{}",
            self.folder.path().join("redis.sock").display()
        )
    }

    fn connection(&self) -> RedisResult<Connection> {
        redis::Client::open(self.url())?.get_connection()
    }

    pub(crate) fn try_command<T: redis::FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut self.connection()?)
    }

    pub(crate) fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words)
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub(crate) fn run_command(&self, command: &redis::Cmd) {
        let mut connection = self.connection().expect("redis");
        command.exec(&mut connection).expect("understood");
    }

    pub(crate) fn signal(&self, signal: &str) {
        kill(signal, self.process.as_ref().expect("running").id());
    }

    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("running");
        process.kill().expect("killed");
        process.wait().expect("a child");
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// All events of a stream, in order.
    pub(crate) fn stream(&self, name: &str) -> Vec<Event> {
        type Entries = Vec<(String, Vec<(String, String)>)>;
        let mut connection = self.connection().expect("redis");
        let entries: Entries = redis::cmd("XRANGE")
            .arg(&[name, "-", "+"])
            .query(&mut connection)
            .expect("a stream");
        entries
            .into_iter()
            .map(|(_, fields)| fields.into_iter().collect::<BTreeMap<_, _>>())
            .collect()
    }

    /// The sessions that an instance has on the roll, by id.
    pub(crate) fn roll(&self, instance: &str) -> BTreeMap<String, Event> {
        let key = format!("{{mainflux.mqtt}}.roll:{instance}");
        let rows: BTreeMap<String, String> = self.command(&["HGETALL", &key]);
        let row = |(id, row): (String, String)| (id, serde_json::from_str(&row).expect("JSON"));
        rows.into_iter().map(row).collect()
    }

    /// The id of the entry at which the part of an instance is valid.
    pub(crate) fn roll_id(&self, instance: &str) -> Option<String> {
        self.command(&["HGET", "{mainflux.mqtt}.roll", instance])
    }

    pub(crate) fn len(&self, stream: &str) -> usize {
        self.connection()
            .expect("redis")
            .xlen(stream)
            .expect("a stream")
    }
}

/// All keys of a Redis with all that is in them; nothing if it is not there, or does not answer.
pub(crate) fn dump(url: &str) -> Vec<Place> {
    let dump = || -> RedisResult<Vec<Place>> {
        let mut connection = redis::Client::open(url)?.get_connection()?;
        connection.set_read_timeout(Some(Duration::from_secs(2)))?;
        let keys: Vec<String> = connection.keys("*")?;
        let mut places = Vec::new();
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query(&mut connection)?;
            let command: &[&str] = match kind.as_str() {
                "stream" => &["XRANGE", &key, "-", "+"],
                "hash" => &["HGETALL", &key],
                "string" => &["GET", &key],
                // Gone meanwhile.
                "none" => continue,
                other => panic!("{key} is a {other}: say how to read it"),
            };
            let value: redis::Value = redis::cmd(command[0])
                .arg(&command[1..])
                .query(&mut connection)?;
            let mut content = Vec::new();
            flatten(&value, &mut content);
            places.push((key, content));
        }
        Ok(places)
    };
    dump().unwrap_or_default()
}

fn flatten(value: &redis::Value, content: &mut Vec<u8>) {
    match value {
        redis::Value::BulkString(bytes) => {
            content.extend(bytes);
            content.push(b'\n');
        }
        redis::Value::Array(values) => values.iter().for_each(|value| flatten(value, content)),
        redis::Value::Int(_) | redis::Value::Nil | redis::Value::Okay => {}
        other => panic!("say how to read {other:?}"),
    }
}

/// A port that nobody listens on now: a server that others are to find cannot be given any.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
