//! The brokers under load, each started afresh in a folder of its own and ended with it.

use crate::mqtt::Login;
use crate::process::Process;
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const ROLLCALL: &str = env!("CARGO_BIN_EXE_rollcall");

/// Loopback addresses a storm goes to. Each of them gives it another 28,000 ports of its own.
const STORM_ADDRESSES: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Rollcall,
    Mosquitto,
}

/// What a scenario asks of its broker.
#[derive(Clone, Copy)]
pub(crate) struct Needs {
    /// Things, spread evenly over the channels, each of them allowed to read and write there.
    pub(crate) things: usize,
    pub(crate) channels: usize,
    /// Many short connections: listen on all of loopback, and tell a Redis of each.
    pub(crate) storm: bool,
    /// What rollcall is set to besides, as in its environment.
    pub(crate) settings: &'static [(&'static str, &'static str)],
}

/// A thing to connect as, and its channel.
pub(crate) struct Guest {
    login: Option<(String, String)>,
    channel: String,
}

impl Guest {
    pub(crate) fn login(&self) -> Option<Login<'_>> {
        self.login
            .as_ref()
            .map(|(user, password)| Login { user, password })
    }

    pub(crate) fn topic(&self) -> String {
        format!("channels/{}/messages/load", self.channel)
    }
}

/// A broker that listens. Fields are dropped in order: the processes before their folder.
pub(crate) struct Broker {
    pub(crate) guests: Vec<Guest>,
    /// Where presence events are relayed to.
    pub(crate) redis: Option<Redis>,
    process: Process,
    port: u16,
    addresses: usize,
    _folder: TempDir,
}

impl Broker {
    pub(crate) fn start(kind: Kind, needs: Needs) -> Result<Self> {
        let folder = TempDir::with_prefix("rollcall-load-")?;
        let started = match kind {
            Kind::Rollcall => Self::rollcall(folder, needs),
            Kind::Mosquitto => Self::mosquitto(folder, needs),
        };
        started.with_context(|| format!("cannot start {kind:?}"))
    }

    fn rollcall(folder: TempDir, needs: Needs) -> Result<Self> {
        let data = folder.path().join("data");
        let redis = needs
            .storm
            .then(|| Redis::start(folder.path()))
            .transpose()?;

        let mut settings: Vec<(&str, String)> = vec![(
            "ROLLCALL_MQTT__LISTEN",
            format!("{}:0", listen_address(needs)),
        )];
        let given = needs.settings.iter();
        settings.extend(given.map(|(key, value)| (*key, (*value).to_owned())));
        if let Some(redis) = &redis {
            settings.push(("ROLLCALL_REDIS__URL", redis.url.clone()));
        }
        let (process, ready) = up(&data, &settings)?;
        let mqtt: SocketAddr = field(&ready, "mqtt=")?.parse()?;
        let guests = provision(&data, field(&ready, "grpc=")?, needs)?;

        Ok(Self {
            guests,
            redis,
            process,
            port: mqtt.port(),
            addresses: addresses(needs),
            _folder: folder,
        })
    }

    /// Anonymous, nothing kept on disk, and no limit at which it would drop messages.
    fn mosquitto(folder: TempDir, needs: Needs) -> Result<Self> {
        let port = free_port()?;
        let config = folder.path().join("mosquitto.conf");
        let listen = listen_address(needs);
        fs::write(
            &config,
            format!(
                "listener {port} {listen}\n\
                 allow_anonymous true\n\
                 persistence false\n\
                 max_queued_messages 0\n\
                 max_inflight_messages 0\n\
                 set_tcp_nodelay true\n\
                 connection_messages false\n\
                 log_dest stderr\n\
                 log_type error\n\
                 log_type information\n"
            ),
        )?;
        let mut command = Command::new("mosquitto");
        command
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        process.await_stderr("running")?;

        let channel = |index| format!("00000000-0000-4000-8000-{index:012}");
        let guests = (0..needs.things)
            .map(|index| Guest {
                login: None,
                channel: channel(index % needs.channels),
            })
            .collect();
        Ok(Self {
            guests,
            redis: None,
            process,
            port,
            addresses: addresses(needs),
            _folder: folder,
        })
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Where the `index`-th connection goes to.
    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        let last_byte = (index % self.addresses) as u8 + 1;
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last_byte)), self.port)
    }
}

fn listen_address(needs: Needs) -> Ipv4Addr {
    if needs.storm {
        Ipv4Addr::UNSPECIFIED
    } else {
        Ipv4Addr::LOCALHOST
    }
}

fn addresses(needs: Needs) -> usize {
    if needs.storm { STORM_ADDRESSES } else { 1 }
}

/// Starts rollcall on the folder `data`, which is made if need be. Returns what it says when it is ready, too.
pub(crate) fn up(data: &Path, settings: &[(&str, String)]) -> Result<(Process, String)> {
    let log_path = data.with_file_name("log");
    let mut command = Command::new(ROLLCALL);
    command
        .arg("up")
        .arg("--data")
        .arg(data)
        .env("ROLLCALL_GRPC__LISTEN", "127.0.0.1:0")
        .env("ROLLCALL_HTTP__LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&log_path)?);
    for (key, value) in settings {
        command.env(key, value);
    }
    let mut process = Process::start(&mut command)?;
    let ready = process.await_stdout("ready ").with_context(|| {
        format!(
            "its log: {}",
            fs::read_to_string(&log_path).unwrap_or_default()
        )
    })?;
    Ok((process, ready))
}

/// A port nobody listens on at the moment.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// The value behind `key` in a line of `key=value` words.
fn field<'a>(line: &'a str, key: &str) -> Result<&'a str> {
    line.split_ascii_whitespace()
        .find_map(|word| word.strip_prefix(key))
        .with_context(|| format!("no {key} in \"{line}\""))
}

/// Has rollcall create the things through its own command, and reads their keys.
fn provision(data: &Path, server: &str, needs: Needs) -> Result<Vec<Guest>> {
    let csv_path = data.with_file_name("things.csv");
    let output = Command::new(ROLLCALL)
        .arg("--data")
        .arg(data)
        .args(["--server", server, "things", "create"])
        .args(["--count", &needs.things.to_string()])
        .args(["--channels", &needs.channels.to_string()])
        .arg("--csv")
        .arg(&csv_path)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        bail!(
            "cannot create things: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let csv = fs::read_to_string(&csv_path).context("cannot read the things created")?;
    let guests: Vec<Guest> = csv.lines().skip(1).map(guest).collect::<Result<_>>()?;
    ensure!(
        guests.len() == needs.things,
        "{} things were created",
        guests.len()
    );
    Ok(guests)
}

/// A row of `thing_id,thing_key,channel_id`.
fn guest(row: &str) -> Result<Guest> {
    let mut fields = row.split(',').map(|field| field.trim().to_owned());
    match (fields.next(), fields.next(), fields.next()) {
        (Some(id), Some(key), Some(channel)) => Ok(Guest {
            login: Some((id, key)),
            channel,
        }),
        _ => bail!("not a row of three fields: {row}"),
    }
}

/// A Redis of its own for each storm, in memory and on a unix socket.
pub(crate) struct Redis {
    pub(crate) url: String,
    pub(crate) process: Process,
}

impl Redis {
    /// Where the Redis of a folder listens once it is started.
    pub(crate) fn url_in(folder: &Path) -> String {
        format!("redis+unix://{}", Self::socket_in(folder).display())
    }

    fn socket_in(folder: &Path) -> PathBuf {
        folder.join("redis.sock")
    }

    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let socket = Self::socket_in(folder);
        let mut command = Command::new("redis-server");
        command
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--unixsocket",
            ])
            .arg(&socket)
            .arg("--dir")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        process
            .await_stdout("eady to accept connections")
            .context("cannot start Redis")?;
        Ok(Self {
            url: Self::url_in(folder),
            process,
        })
    }

    pub(crate) fn connect(&self) -> Result<redis::Connection> {
        Ok(redis::Client::open(self.url.as_str())?.get_connection()?)
    }

    /// A count of the presence events that have arrived so far.
    pub(crate) fn presence_events(&self) -> Result<impl FnMut() -> Result<u64> + use<>> {
        let mut connection = self.connect()?;
        Ok(move || {
            Ok(redis::cmd("XLEN")
                .arg("mainflux.mqtt")
                .query(&mut connection)?)
        })
    }
}
