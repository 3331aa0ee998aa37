//! The broker under load: started here and stopped again, or running already.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_rollcall");
/// How long a broker may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Rollcall,
    Mosquitto,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rollcall => "rollcall",
            Self::Mosquitto => "mosquitto",
        })
    }
}

/// What a client of the load logs in with, and the channel it may use.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) thing: String,
    pub(crate) key: String,
    pub(crate) channel: String,
}

pub(crate) struct Broker {
    pub(crate) name: String,
    /// Listens on all addresses of the loopback network, so that no port runs out.
    pub(crate) address: SocketAddr,
    pid: Option<u32>,
    logins: Vec<Login>,
    processes: Vec<Child>,
    folder: Option<TempDir>,
}

impl Broker {
    pub(crate) fn start(kind: Kind, things: usize, channels: usize) -> anyhow::Result<Self> {
        match kind {
            Kind::Rollcall => Self::start_rollcall(things, channels),
            Kind::Mosquitto => Self::start_mosquitto(),
        }
    }

    pub(crate) fn running(address: SocketAddr, logins: Option<&Path>) -> anyhow::Result<Self> {
        let logins = logins.map(read_logins).transpose()?.unwrap_or_default();
        let name = address.to_string();
        Ok(Self {
            name,
            address,
            pid: None,
            logins,
            processes: Vec::new(),
            folder: None,
        })
    }

    /// With a Redis beside, as it is meant to run.
    fn start_rollcall(things: usize, channels: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let redis = Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--unixsocket",
                "redis.sock",
                "--save",
                "",
                "--dir",
            ])
            .arg(folder.path())
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start redis-server")?;
        let mut processes = vec![redis];
        let data = folder.path().join("data");
        let mut server = Command::new(PROGRAM)
            .arg("up")
            .arg("--data")
            .arg(&data)
            .arg("--redis")
            .arg(format!(
                "redis+unix://{}",
                folder.path().join("redis.sock").display()
            ))
            .env("ROLLCALL_MQTT__LISTEN", "0.0.0.0:0")
            .env("ROLLCALL_GRPC__LISTEN", "127.0.0.1:0")
            .env("ROLLCALL_HTTP__LISTEN", "127.0.0.1:0")
            .env("ROLLCALL_LOG__FILTER", "warn")
            .env("ROLLCALL_MQTT__MAX_CONNECTIONS", "19000")
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start rollcall")?;
        let pid = server.id();
        let out = server.stdout.take().context("piped")?;
        processes.push(server);
        let ready = BufReader::new(out).lines().map_while(Result::ok);
        let ready = ready.into_iter().find(|line| line.starts_with("ready "));
        let ready = ready.context("rollcall ended before it was ready")?;
        let value = |name: &str| ready.split(' ').find_map(|pair| pair.strip_prefix(name));
        let (mqtt, grpc) = (
            value("mqtt=").context("mqtt")?,
            value("grpc=").context("grpc")?,
        );
        let port = mqtt.parse::<SocketAddr>()?.port();

        let csv = folder.path().join("things.csv");
        let status = Command::new(PROGRAM)
            .args(["--json", "--server", grpc, "--data"])
            .arg(&data)
            .args(["things", "create", "load", "--count", &things.to_string()])
            .args(["--channels", &channels.to_string(), "--csv"])
            .arg(&csv)
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("cannot make the things");
        }
        Ok(Self {
            name: "rollcall".to_owned(),
            address: (Ipv4Addr::LOCALHOST, port).into(),
            pid: Some(pid),
            logins: read_logins(&csv)?,
            processes,
            folder: Some(folder),
        })
    }

    fn start_mosquitto() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = folder.path().join("mosquitto.conf");
        fs::write(
            &config,
            format!(
                "listener {port} 0.0.0.0\nallow_anonymous true\npersistence false\n\
             max_queued_messages 0\nmax_inflight_messages 0\nlog_type none\n"
            ),
        )?;
        let server = Command::new("mosquitto")
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .arg("-c")
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start mosquitto: install Debian's package of that name")?;
        let pid = server.id();
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
        let broker = Self {
            name: "mosquitto".to_owned(),
            address,
            pid: Some(pid),
            logins: Vec::new(),
            processes: vec![server],
            folder: Some(folder),
        };
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            if begin.elapsed() > PATIENCE {
                bail!("mosquitto does not listen");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(broker)
    }

    /// The login of the `n`th client; none for a broker that asks for none.
    pub(crate) fn login(&self, n: usize) -> Option<&Login> {
        self.logins.get(n % self.logins.len().max(1))
    }

    /// The topic that the `n`th client may use.
    pub(crate) fn topic(&self, n: usize) -> String {
        match self.login(n) {
            Some(login) => format!("channels/{}/messages/load", login.channel),
            None => format!("channels/00000000-0000-4000-8000-{n:012}/messages/load"),
        }
    }

    /// Entries of the presence stream; `None` if the broker has none that is known.
    pub(crate) fn stream_len(&self) -> anyhow::Result<Option<usize>> {
        let Some(folder) = self.folder.as_ref().filter(|_| !self.logins.is_empty()) else {
            return Ok(None);
        };
        let url = format!(
            "redis+unix://{}",
            folder.path().join("redis.sock").display()
        );
        let mut connection = redis::Client::open(url)?.get_connection()?;
        let len = redis::cmd("XLEN")
            .arg("mainflux.mqtt")
            .query(&mut connection)?;
        Ok(Some(len))
    }

    /// Processor time the broker has taken.
    pub(crate) fn cpu(&self) -> Duration {
        self.pid.map_or(Duration::ZERO, cpu)
    }

    /// Memory the broker holds, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let pid = self
            .pid
            .context("only a broker that was started here can be weighed")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("VmRSS")?.parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Processor time a process has taken.
pub(crate) fn cpu(pid: u32) -> Duration {
    // Of the kernel's clock ticks, a hundred are a second on every Linux.
    let ticks = || -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
        Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
    };
    Duration::from_millis(10 * ticks().unwrap_or(0))
}

fn read_logins(csv: &Path) -> anyhow::Result<Vec<Login>> {
    let text = fs::read_to_string(csv).with_context(|| format!("cannot read {}", csv.display()))?;
    let rows = text.lines().skip(1).map(|row| {
        let mut parts = row.split(',').map(str::to_owned);
        let mut part = || {
            parts
                .next()
                .context("a row is thing_id,thing_key,channel_id")
        };
        Ok(Login {
            thing: part()?,
            key: part()?,
            channel: part()?,
        })
    });
    rows.collect()
}
