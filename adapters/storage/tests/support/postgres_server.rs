//! A real PostgreSQL of a test's own, on a unix socket in a temporary folder.

#![allow(dead_code, reason = "each of several programs needs its own part")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Who may do everything, from this machine, without a password.
const OWNER: &str = "rollcall";
/// `nobody` on Debian and most others. PostgreSQL does not run for root.
const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(60);
/// What makes it fast, and loses data with the power.
const CARELESS: [&str; 3] = [
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
];

pub(crate) struct PostgresServer {
    folder: TempDir,
    /// On this machine, with TLS; without it there is the socket alone.
    port: Option<u16>,
    process: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl PostgresServer {
    /// The one of this process, as long as somebody has it.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|it| it.into_inner());
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    pub(crate) fn start() -> Self {
        Self::start_with(None)
    }

    /// With TLS, and this certificate.
    pub(crate) fn secured(certificate: &Path, key: &Path) -> Self {
        Self::start_with(Some((certificate, key)))
    }

    fn start_with(tls: Option<(&Path, &Path)>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        give(folder.path());
        let copied = Command::new("cp")
            .args(["-R", "--reflink=auto"])
            .arg(template())
            .arg(folder.path().join("data"))
            .status();
        assert!(copied.expect("cp").success());
        if let Some((certificate, key)) = tls {
            let place = |name| folder.path().join("data").join(name);
            fs::copy(certificate, place("server.crt")).expect("copied");
            fs::copy(key, place("server.key")).expect("copied");
            let own = fs::Permissions::from_mode(0o600);
            fs::set_permissions(place("server.key"), own).expect("closed to others");
        }
        if is_root() {
            let mut chown = Command::new("chown");
            chown.arg("-R").arg(NOBODY.to_string()).arg(folder.path());
            assert!(chown.status().expect("chown").success());
        }
        let data = folder.path().join("data");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("closed to others");
        // Who comes by name needs the password.
        let mut rules = format!("local all {OWNER} trust\nlocal all all scram-sha-256\n");
        rules += "hostssl all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("rules");
        let server = Self {
            folder,
            port: tls.map(|_| {
                let any = TcpListener::bind("127.0.0.1:0").expect("a port");
                any.local_addr().expect("bound").port()
            }),
            process: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        server.run();
        server
    }

    pub(crate) fn run(&self) {
        let mut postgres = unprivileged("postgres");
        postgres.arg("-D").arg(self.folder.path().join("data"));
        postgres.arg("-k").arg(self.folder.path());
        for setting in CARELESS {
            postgres.args(["-c", setting]);
        }
        // Room for many pools; no port at all, but for TLS.
        postgres.args(["-c", "max_connections=200"]);
        match self.port {
            None => postgres.args(["-c", "listen_addresses="]),
            Some(port) => postgres
                .args(["-c", "ssl=on", "-c", "listen_addresses=127.0.0.1"])
                .args(["-p", &port.to_string()]),
        };
        let log = fs::File::create(self.folder.path().join("log")).expect("a log");
        postgres.stdout(Stdio::null()).stderr(log);
        let process = postgres.spawn().expect("postgres starts");
        *self.process() = Some(process);
        let end = Instant::now() + PATIENCE;
        while self.try_query("postgres", "SELECT 1").is_err() {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "no answer: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As an administrator does: those who are connected are thrown out.
    pub(crate) fn stop(&self) {
        self.end("INT");
    }

    fn end(&self, signal: &str) {
        let Some(mut process) = self.process().take() else {
            return;
        };
        let pid = process.id().to_string();
        let _ = Command::new("kill").args(["-s", signal, &pid]).status();
        let _ = process.wait();
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(|it| it.into_inner())
    }

    /// Makes an empty database and returns its name.
    pub(crate) fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("rollcall_{number}");
        self.query("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    pub(crate) fn url(&self, database: &str) -> String {
        self.url_of(OWNER, "", database)
    }

    pub(crate) fn url_of(&self, user: &str, password: &str, database: &str) -> String {
        let host = self.folder.path().display();
        format!("postgres://{user}:{password}@localhost/{database}?host={host}")
    }

    /// By way of TLS, at `host`, which is this machine; `more` is what comes behind the question mark.
    pub(crate) fn secured_url(
        &self,
        login: &str,
        host: &str,
        database: &str,
        more: &str,
    ) -> String {
        let port = self.port.expect("a server with TLS");
        format!("postgres://{login}@{host}:{port}/{database}?{more}")
    }

    /// What a statement says, a row a line, columns with `|` between.
    pub(crate) fn query(&self, database: &str, sql: &str) -> String {
        self.try_query(database, sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(crate) fn try_query(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(program("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", OWNER]);
        psql.arg("-h").arg(self.folder.path());
        if let Some(port) = self.port {
            psql.args(["-p", &port.to_string()]);
        }
        psql.args(["-d", database, "-c", sql]);
        let output = psql.output().expect("psql");
        let text = |bytes| String::from_utf8_lossy(bytes).trim_end().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // At once: nobody needs the data.
        self.end("QUIT");
    }
}

/// Everything in a database, as text.
pub(crate) fn dump(url: &str) -> Vec<u8> {
    let output = Command::new(program("pg_dump")).arg(url).output();
    output.expect("pg_dump").stdout
}

/// An empty cluster, made once for all: to copy it is faster.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(folder).expect("a folder");
        let version = Command::new(program("postgres")).arg("--version").output();
        let version = String::from_utf8(version.expect("postgres").stdout).expect("text");
        let name: String = version
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        let made = folder.join(name);
        // One of several processes makes it.
        let lock = fs::File::create(folder.join("postgres.lock")).expect("a lock");
        lock.lock().expect("the lock");
        if !made.exists() {
            let new = tempfile::tempdir().expect("a folder");
            give(new.path());
            let mut initdb = unprivileged("initdb");
            initdb.arg("-D").arg(new.path().join("data"));
            initdb.args(["-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]);
            let output = initdb.output().expect("initdb");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "initdb: {said}");
            let beside = folder.join("postgres.new");
            let _ = fs::remove_dir_all(&beside);
            let mut cp = Command::new("cp");
            cp.arg("-R").arg(new.path().join("data")).arg(&beside);
            assert!(cp.status().expect("cp").success());
            fs::rename(beside, &made).expect("in its place");
        }
        made
    })
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

/// Lets the server work in a folder of the tests.
fn give(folder: &Path) {
    if is_root() {
        chown(folder, Some(NOBODY), None).expect("given away");
    }
}

fn unprivileged(name: &str) -> Command {
    let mut command = Command::new(program(name));
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    // Where it may be.
    command.current_dir("/");
    command
}

/// On the path, or where Debian has it: the latest version.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<PathBuf> = debian.flatten().map(|it| it.path().join("bin")).collect();
    versions.sort_by_key(|it| {
        let version = it.parent().and_then(Path::file_name);
        version.and_then(|it| it.to_str()?.parse::<u32>().ok())
    });
    places.extend(versions.into_iter().rev());
    let mut found = places.into_iter().map(|it| it.join(name));
    found
        .find(|it| it.exists())
        .unwrap_or_else(|| panic!("{name} is installed: see tests/run"))
}
