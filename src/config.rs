//! What can be set: the sum of what the rooms let set, from `configs/default.toml`, a file, the environment
//! and the command line, each over the one before.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::builder::DefaultState;
use config::{ConfigBuilder, Environment, File, FileFormat};
use rollcall_domain::identity::Secret;
use rollcall_domain::setting::{choice, one_or_many};
use rollcall_domain::users::{self, PasswordRule, Registration};
use serde::Deserialize;

use crate::server::Role;

const DEFAULTS: &str = include_str!("../configs/default.toml");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of this instance in events; never empty.
    pub instance: String,
    pub data: PathBuf,
    pub log: crate::telemetry::Config,
    pub admin: Admin,
    pub mqtt: rollcall_mqtt::Config,
    pub access: rollcall_domain::access::Config,
    pub users: Users,
    pub mail: rollcall_mail::Config,
    pub things: Things,
    pub bootstrap: Bootstrap,
    pub storage: rollcall_storage::database::Config,
    pub journal: rollcall_storage::journal::Config,
    pub events: Events,
    pub redis: rollcall_redis::Config,
    pub lease: rollcall_redis::lease::Config,
    pub grpc: rollcall_grpc::Config,
    pub http: rollcall_http::Config,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    pub identity: String,
    /// Empty for a generated one.
    password: Secret,
    /// Where it is read from instead.
    pub password_file: PathBuf,
}

impl Admin {
    /// The password the administrator is to have; `None` if one is to be generated.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn password(&self) -> std::io::Result<Option<Secret>> {
        let given = match self.password_file.as_os_str().is_empty() {
            true => self.password.clone(),
            false => {
                let text = std::fs::read_to_string(&self.password_file)?;
                Secret::new(text.trim_end_matches(['\r', '\n']))
            }
        };
        Ok(Some(given).filter(|it| !it.expose().is_empty()))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Users {
    /// Empty for the users service of this process.
    pub authority: String,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    #[serde(deserialize_with = "choice")]
    pub registration: Registration,
    pub password_rule: PasswordRule,
    /// Empty for a generated key.
    pub token_key_file: PathBuf,
    #[serde(with = "humantime_serde")]
    pub access_token_duration: Duration,
    #[serde(with = "humantime_serde")]
    pub refresh_token_duration: Duration,
    #[serde(with = "humantime_serde")]
    pub reset_token_duration: Duration,
    pub reset_endpoint: String,
    /// Where links may lead; `*` is anywhere.
    #[serde(deserialize_with = "one_or_many")]
    pub reset_hosts: Vec<String>,
    pub max_guesses: u32,
    pub max_guesses_in_all: u32,
    /// Passwords hashed at one time.
    pub hashers: usize,
    /// Passwords that wait for it.
    pub max_hashing: usize,
}

impl Users {
    /// What of it is the domain's.
    #[must_use]
    pub fn settings(&self, reset_mail_timeout: Duration) -> users::Settings {
        users::Settings {
            registration: self.registration,
            password_rule: self.password_rule.clone(),
            access_token_duration: self.access_token_duration,
            refresh_token_duration: self.refresh_token_duration,
            reset_token_duration: self.reset_token_duration,
            reset_endpoint: self.reset_endpoint.clone(),
            max_guesses: self.max_guesses,
            max_guesses_in_all: self.max_guesses_in_all,
            reset_hosts: self.reset_hosts.clone(),
            reset_mail_timeout,
        }
    }

    fn problem(&self) -> Option<(&'static str, &'static str)> {
        let day = Duration::from_secs(24 * 3_600);
        let within = |it: Duration, end| (Duration::from_secs(1)..=end).contains(&it);
        let endpoint = self.reset_endpoint.as_str();
        [
            (
                !within(self.access_token_duration, day),
                "users.access_token_duration",
                "from 1s to 1d",
            ),
            (
                !within(self.refresh_token_duration, 366 * day),
                "users.refresh_token_duration",
                "from 1s to 366d",
            ),
            (
                !within(self.reset_token_duration, day),
                "users.reset_token_duration",
                "from 1s to 1d",
            ),
            (
                !endpoint.starts_with('/') || endpoint.contains(['?', '#', ' ']),
                "users.reset_endpoint",
                "a path, such as /reset-request",
            ),
            (
                !self.reset_hosts.iter().all(|host| is_origin(host)),
                "users.reset_hosts",
                "of each the beginning of its address, such as https://example.com, or * for any",
            ),
            (self.max_guesses == 0, "users.max_guesses", "at least 1"),
            (
                self.max_guesses_in_all == 0,
                "users.max_guesses_in_all",
                "at least 1",
            ),
            (
                !(1..=64).contains(&self.hashers),
                "users.hashers",
                "from 1 to 64",
            ),
            // Else two who sign in at one moment are one too many.
            (self.max_hashing == 0, "users.max_hashing", "at least 1"),
            (self.timeout.is_zero(), "users.timeout", "longer than 0s"),
        ]
        .into_iter()
        .find_map(|(wrong, key, problem)| wrong.then_some((key, problem)))
    }
}

fn is_origin(host: &str) -> bool {
    let rest = host
        .strip_prefix("https://")
        .or_else(|| host.strip_prefix("http://"));
    host == "*" || rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@']))
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Things {
    /// Empty for the things service of this process.
    pub authority: String,
    /// Whom bootstrap asks; empty for the same.
    pub url: String,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    #[serde(deserialize_with = "choice")]
    pub show_keys: ShowKeys,
}

/// Whether the key of a thing can be seen after it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShowKeys {
    Always,
    Once,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// In which bootstrap reads the things stream of a Redis.
    pub group: String,
    /// Empty for one in the folder of secrets.
    pub encrypt_key_file: PathBuf,
    /// Wrong keys within the window; 0 for any number.
    pub failed_fetches: u32,
    #[serde(with = "humantime_serde")]
    pub failed_fetch_window: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Whether sessions are on the roll and announced.
    pub mqtt: bool,
    pub extended: bool,
    pub exclude: rollcall_domain::event::Exclude,
    /// Whether private keys of clients are announced as they are.
    pub private_keys: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    // Its text is all there is to be said.
    #[error("wrong configuration: {0}")]
    Wrong(config::ConfigError),
    #[error("wrong configuration: {key}: {problem}")]
    Value { key: String, problem: &'static str },
    #[error("cannot find the name of this host: set `instance`")]
    HostName(#[source] std::io::Error),
}

/// Reads the configuration. `flags` are keys such as `redis.url` and the values the command line gave them.
///
/// # Errors
/// A file cannot be read, or a key or value is wrong; the message names it.
pub fn load(file: Option<&Path>, flags: &[(&str, String)]) -> Result<Config, ConfigError> {
    let environment = Environment::with_prefix("ROLLCALL")
        .prefix_separator("_")
        .separator("__");
    build(file, environment, flags)
}

fn build(
    file: Option<&Path>,
    environment: Environment,
    flags: &[(&str, String)],
) -> Result<Config, ConfigError> {
    let mut builder: ConfigBuilder<DefaultState> =
        config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
    if let Some(file) = file {
        builder = builder.add_source(File::from(file).format(FileFormat::Toml));
    }
    builder = builder.add_source(environment);
    for (key, value) in flags {
        let set = builder.set_override(key, value.as_str());
        builder = set.map_err(ConfigError::Wrong)?;
    }
    let built = builder.build().and_then(|it| it.try_deserialize());
    let mut config: Config = built.map_err(ConfigError::Wrong)?;
    if config.instance.is_empty() {
        config.instance = host_name().map_err(ConfigError::HostName)?;
    }
    config.http.settle_ports();
    check(&config)?;
    Ok(config)
}

/// What no type can say.
fn check(config: &Config) -> Result<(), ConfigError> {
    let name = &config.instance;
    for (wrong, key, problem) in [
        (
            name.len() > 255 || name.contains(char::is_control),
            "instance",
            "at most 255 bytes and no control characters",
        ),
        (config.redis.batch == 0, "redis.batch", "at least 1"),
        // More fields than Lua can pass on.
        (config.redis.batch > 4096, "redis.batch", "at most 4096"),
        (config.redis.pipeline == 0, "redis.pipeline", "at least 1"),
        (
            config.redis.prefix.is_empty(),
            "redis.prefix",
            "must not be empty",
        ),
        (
            !(Duration::from_millis(500)..=Duration::from_secs(3600)).contains(&config.lease.ttl),
            "lease.ttl",
            "from 500ms to 1h",
        ),
        (
            !config.admin.password.expose().is_empty()
                && !config.admin.password_file.as_os_str().is_empty(),
            "admin.password",
            "not with admin.password_file",
        ),
        (
            config.access.max_entries == 0,
            "access.max_entries",
            "at least 1",
        ),
        (config.access.ttl.is_zero(), "access.ttl", "longer than 0s"),
        (
            !config.redis.url.is_empty()
                && config.mqtt.drain.deadline <= config.redis.drain_timeout,
            "mqtt.drain.deadline",
            "longer than redis.drain_timeout",
        ),
        (
            !config.things.authority.is_empty() && config.mqtt.takes_certificates_for_keys(),
            "mqtt.tls.certificate_login",
            "instead_of_key needs the things service of this process: one elsewhere (things.authority) knows things by \
             their keys alone",
        ),
        (
            config.bootstrap.group.is_empty(),
            "bootstrap.group",
            "must not be empty",
        ),
        (
            config.bootstrap.failed_fetch_window.is_zero(),
            "bootstrap.failed_fetch_window",
            "longer than 0s",
        ),
        (
            config.things.timeout.is_zero(),
            "things.timeout",
            "longer than 0s",
        ),
        (
            config.mqtt.max_connections == 0,
            "mqtt.max_connections",
            "at least 1",
        ),
    ] {
        if wrong {
            return Err(value(key, problem));
        }
    }
    let problems = [
        config.storage.problem(),
        config.redis.problem(),
        config.mqtt.problem(),
        config.users.problem(),
        config.mail.problem(),
        config.grpc.problem(),
        config.http.problem(),
    ];
    if let Some((key, problem)) = problems.into_iter().flatten().next() {
        return Err(value(key, problem));
    }
    let sections = [
        ("grpc.tls", config.grpc.tls.lacks()),
        ("grpc.client", config.grpc.client.problem()),
        ("http.tls", config.http.tls.lacks()),
    ];
    for (section, found) in sections {
        if let Some((name, problem)) = found {
            return Err(value(format!("{section}.{name}"), problem));
        }
    }
    for (key, url) in [
        ("users.authority", &config.users.authority),
        ("things.authority", &config.things.authority),
        ("things.url", &config.things.url),
    ] {
        if !url.is_empty() && !rollcall_grpc::is_address(url) {
            return Err(value(key, "write http://host:7000, or https://host:7000"));
        }
    }
    Ok(())
}

fn value(key: impl Into<String>, problem: &'static str) -> ConfigError {
    let key = key.into();
    ConfigError::Value { key, problem }
}

/// What a part that runs alone has to be told.
///
/// # Errors
/// Where the services are that it asks.
pub fn check_role(config: &Config, role: Role) -> Result<(), ConfigError> {
    let asks_users = matches!(role, Role::Things | Role::Bootstrap);
    let (users, things) = (&config.users.authority, &config.things.authority);
    for (lacks, key, problem) in [
        (
            asks_users && users.is_empty(),
            "users.authority",
            "name the users service: http://host:7000",
        ),
        (
            role == Role::Mqtt && things.is_empty(),
            "things.authority",
            "name the things service: http://host:7000",
        ),
        (
            role == Role::Bootstrap && config.things.url.is_empty(),
            "things.url",
            "name the things service: http://host:7000",
        ),
    ] {
        if lacks {
            return Err(value(key, problem));
        }
    }
    Ok(())
}

fn host_name() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        let pairs: HashMap<String, String> = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Environment::with_prefix("ROLLCALL")
            .prefix_separator("_")
            .separator("__")
            .source(Some(pairs))
    }

    #[test]
    fn later_sources_win_over_earlier_ones() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("rollcall.toml");
        std::fs::write(
            &file,
            "instance = \"file\"\n[mqtt]\nworkers = 3\nmax_inflight = 9\n",
        )
        .expect("file");
        let environment = environment(&[
            ("ROLLCALL_MQTT__WORKERS", "5"),
            ("ROLLCALL_MQTT__LISTEN", "127.0.0.1:0"),
            ("ROLLCALL_JOURNAL__MAX_BYTES", "3MiB"),
            ("ROLLCALL_EVENTS__EXTENDED", "true"),
        ]);
        let flags = [("redis.url", "redis://flag".to_owned())];
        let config = build(Some(&file), environment, &flags).expect("sound");
        assert_eq!(config.instance, "file");
        assert_eq!(config.mqtt.workers, 5);
        assert_eq!(config.mqtt.max_inflight, 9);
        assert_eq!(config.mqtt.listen[0].to_string(), "127.0.0.1:0");
        assert_eq!(config.journal.max_bytes.as_u64(), 3 << 20);
        assert!(config.events.extended);
        assert_eq!(config.redis.url.to_string(), "redis://flag");
    }

    #[test]
    fn addresses_are_one_or_many_wherever_they_come_from() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("rollcall.toml");
        let many = ["127.0.0.1:1", "[::1]:2", "unix:/run/a.sock"]
            .map(|it| it.parse().expect("an address"));
        let text = "[mqtt]\nlisten = [\"127.0.0.1:1\", \"[::1]:2\", \"unix:/run/a.sock\"]\n";
        std::fs::write(&file, text).expect("file");
        let config = build(Some(&file), environment(&[]), &[]).expect("sound");
        assert_eq!(config.mqtt.listen, many);
        let listen = |text| environment(&[("ROLLCALL_MQTT__LISTEN", text)]);
        let config =
            build(None, listen("127.0.0.1:1, [::1]:2, unix:/run/a.sock"), &[]).expect("sound");
        assert_eq!(config.mqtt.listen, many);
        let config = build(Some(&file), listen("127.0.0.1:1"), &[]).expect("sound");
        assert_eq!(config.mqtt.listen, many[..1]);
        let config = build(None, listen(""), &[]).expect("sound");
        assert_eq!(config.mqtt.listen, []);
        for wrong in ["127.0.0.1:1,", "localhost", "unix:mqtt.sock"] {
            let error = build(None, listen(wrong), &[]).expect_err(wrong);
            assert!(format!("{error:#}").contains("mqtt.listen"), "{error:#}");
        }
    }

    #[test]
    fn a_wrong_key_or_value_is_named() {
        for (name, value, told) in [
            ("ROLLCALL_MQTT__WORKERZ", "5", "workerz"),
            ("ROLLCALL_MQTTT__WORKERS", "5", "mqttt"),
            ("ROLLCALL_MQTT__WORKERS", "many", "mqtt.workers"),
            ("ROLLCALL_MQTT__WORKERS", "100000", "mqtt.workers"),
            ("ROLLCALL_MQTT__SYS__INTERVAL", "1ms", "mqtt.sys.interval"),
            (
                "ROLLCALL_MQTT__CONNECT_TIMEOUT",
                "5 parsecs",
                "connect_timeout",
            ),
            (
                "ROLLCALL_HTTP__TRUSTED_PROXIES",
                "0.0.0.0/0",
                "http.trusted_proxies",
            ),
            (
                "ROLLCALL_GRPC__TRUSTED_PROXIES",
                "10.0.0.1,proxy",
                "grpc.trusted_proxies",
            ),
            ("ROLLCALL_JOURNAL__DURABILITY", "paper", "durability"),
            ("ROLLCALL_MQTT__DURABILITY", "paper", "durability"),
            (
                "ROLLCALL_MQTT__COMMIT_INTERVAL",
                "2s",
                "mqtt.commit_interval",
            ),
            (
                "ROLLCALL_STORAGE__URL",
                "mysql://db/rollcall",
                "storage.url",
            ),
            (
                "ROLLCALL_STORAGE__MAX_CONNECTIONS",
                "1",
                "storage.max_connections",
            ),
            (
                "ROLLCALL_STORAGE__CONNECT_TIMEOUT",
                "1ms",
                "storage.connect_timeout",
            ),
            (
                "ROLLCALL_STORAGE__STATEMENT_TIMEOUT",
                "1h",
                "storage.statement_timeout",
            ),
            ("ROLLCALL_USERS__PASSWORD_RULE", "(", "users.password_rule"),
            ("ROLLCALL_USERS__REGISTRATION", "closed", "registration"),
            (
                "ROLLCALL_USERS__ACCESS_TOKEN_DURATION",
                "0s",
                "users.access_token_duration",
            ),
            (
                "ROLLCALL_USERS__REFRESH_TOKEN_DURATION",
                "367d",
                "users.refresh_token_duration",
            ),
            (
                "ROLLCALL_USERS__RESET_TOKEN_DURATION",
                "2d",
                "users.reset_token_duration",
            ),
            (
                "ROLLCALL_USERS__RESET_ENDPOINT",
                "x",
                "users.reset_endpoint",
            ),
            ("ROLLCALL_MAIL__FROM", "nobody", "mail.from"),
            ("ROLLCALL_MAIL__PORT", "0", "mail.port"),
            ("ROLLCALL_MAIL__ENCRYPTION", "some", "encryption"),
            ("ROLLCALL_MAIL__TIMEOUT", "0s", "mail.timeout"),
            ("ROLLCALL_MAIL__GIVE_UP_AFTER", "8d", "mail.give_up_after"),
            ("ROLLCALL_USERS__MAX_GUESSES", "0", "users.max_guesses"),
            (
                "ROLLCALL_USERS__MAX_GUESSES_IN_ALL",
                "0",
                "users.max_guesses_in_all",
            ),
            ("ROLLCALL_USERS__HASHERS", "0", "users.hashers"),
            ("ROLLCALL_USERS__MAX_HASHING", "0", "users.max_hashing"),
            ("ROLLCALL_USERS__TIMEOUT", "0s", "users.timeout"),
            ("ROLLCALL_THINGS__TIMEOUT", "0s", "things.timeout"),
            (
                "ROLLCALL_USERS__RESET_HOSTS",
                "https://a.example,b.example",
                "users.reset_hosts",
            ),
            (
                "ROLLCALL_USERS__RESET_HOSTS",
                "https://a.example/login",
                "users.reset_hosts",
            ),
            ("ROLLCALL_USERS__AUTHORITY", "users:7000", "users.authority"),
            (
                "ROLLCALL_THINGS__AUTHORITY",
                "redis://things:7000",
                "things.authority",
            ),
            ("ROLLCALL_THINGS__URL", "http://things/api", "things.url"),
            ("ROLLCALL_GRPC__TLS__CERTIFICATE", "a.pem", "grpc.tls.key"),
            ("ROLLCALL_GRPC__TLS__KEY", "a.key", "grpc.tls.certificate"),
            (
                "ROLLCALL_GRPC__TLS__CLIENT_CA",
                "ca.pem",
                "grpc.tls.client_ca",
            ),
            ("ROLLCALL_HTTP__TLS__CERTIFICATE", "a.pem", "http.tls.key"),
            (
                "ROLLCALL_HTTP__TLS__CLIENT_CRL",
                "crl",
                "http.tls.client_crl",
            ),
            ("ROLLCALL_GRPC__CLIENT__CERTIFICATE", "a", "grpc.client.key"),
            ("ROLLCALL_GRPC__CLIENT__KEY", "a", "grpc.client.certificate"),
            (
                "ROLLCALL_GRPC__CLIENT__SERVER_NAME",
                "no name",
                "grpc.client.server_name",
            ),
            ("ROLLCALL_EVENTS__EXCLUDE", "*.view,things", "\"things\""),
            ("ROLLCALL_EVENTS__EXCLUDE", "*.VIEW", "events.exclude"),
            ("ROLLCALL_ACCESS__TTL", "0s", "access.ttl"),
            ("ROLLCALL_GRPC__LISTEN", "localhost:7000", "127.0.0.1:7000"),
            ("ROLLCALL_HTTP__LISTEN", "9005", "127.0.0.1:7000"),
            ("ROLLCALL_GRPC__TIMEOUT", "0s", "grpc.timeout"),
            ("ROLLCALL_REDIS__BATCH", "0", "redis.batch"),
            ("ROLLCALL_REDIS__RETRY_MIN", "0s", "redis.retry_min"),
            ("ROLLCALL_REDIS__RETRY_MAX", "1ms", "redis.retry_max"),
            (
                "ROLLCALL_REDIS__CONNECT_TIMEOUT",
                "0s",
                "redis.connect_timeout",
            ),
            (
                "ROLLCALL_REDIS__RESPONSE_TIMEOUT",
                "0s",
                "redis.response_timeout",
            ),
            (
                "ROLLCALL_REDIS__MAX_STREAM_AGE",
                "1ms",
                "redis.max_stream_age",
            ),
            ("ROLLCALL_BOOTSTRAP__GROUP", "", "bootstrap.group"),
            (
                "ROLLCALL_BOOTSTRAP__FAILED_FETCH_WINDOW",
                "0s",
                "bootstrap.failed_fetch_window",
            ),
            ("ROLLCALL_LEASE__TTL", "100ms", "lease.ttl"),
            ("ROLLCALL_LEASE__TTL", "2h", "lease.ttl"),
        ] {
            let error = build(None, environment(&[(name, value)]), &[]).expect_err(name);
            let message = error.to_string();
            assert!(message.contains(told), "{name}={value}: {message}");
            // With its causes it says nothing twice.
            assert_eq!(format!("{:#}", anyhow::Error::from(error)), message);
        }
    }

    #[test]
    fn what_is_none_of_the_words_is_told_which_there_are() {
        for (key, words) in [
            ("log.format", "`text` or `json`"),
            ("mqtt.access", "`things` or `open`"),
            ("mqtt.durability", "`disk`, `process`, `memory`"),
            ("mqtt.tls.min_version", "`1.2` or `1.3`"),
            (
                "mqtt.tls.client_certificate",
                "`none`, `optional`, `required`",
            ),
            (
                "mqtt.tls.certificate_login",
                "`with_key` or `instead_of_key`",
            ),
            ("mqtt.limits.rate_action", "`delay` or `disconnect`"),
            ("mqtt.listeners.tls.transport", "`tcp`, `tls`, `ws`, `wss`"),
            ("mqtt.listeners.tls.access", "`things` or `open`"),
            ("mqtt.listeners.tls.tls.min_version", "`1.2` or `1.3`"),
            ("users.registration", "`open` or `admin`"),
            ("mail.encryption", "`starttls`, `tls`, `none`"),
            ("things.show_keys", "`always` or `once`"),
            ("journal.durability", "`disk` or `process`"),
            ("journal.when_full", "`refuse` or `drop_oldest`"),
        ] {
            let name = format!("ROLLCALL_{}", key.to_uppercase().replace('.', "__"));
            let error = build(None, environment(&[(&name, "other")]), &[]).expect_err(key);
            let message = error.to_string();
            assert!(message.contains(words), "{key}: {message}");
            assert!(message.contains(key), "{key}: {message}");
        }
    }

    #[test]
    fn a_password_is_written_or_in_a_file() {
        for (name, file, key) in [
            ("ADMIN__PASSWORD", "ADMIN__PASSWORD_FILE", "admin.password"),
            ("MAIL__PASSWORD", "MAIL__PASSWORD_FILE", "mail.password"),
        ] {
            let both = [name, file].map(|name| format!("ROLLCALL_{name}"));
            let both = [(&*both[0], "a password"), (&*both[1], "a file")];
            let error = build(None, environment(&both), &[]).expect_err(key);
            assert!(error.to_string().contains(key), "{error}");
        }
        let clear = [
            ("ROLLCALL_MAIL__HOST", "mail.example"),
            ("ROLLCALL_MAIL__USER", "postman"),
            ("ROLLCALL_MAIL__ENCRYPTION", "none"),
        ];
        let error = build(None, environment(&clear), &[]).expect_err("in clear");
        assert!(error.to_string().contains("mail.encryption"), "{error}");
    }

    #[test]
    fn every_default_has_its_reason() {
        let mut explained = false;
        for line in DEFAULTS.lines() {
            match line.trim() {
                "" => explained = false,
                comment if comment.starts_with('#') => explained = true,
                section if section.starts_with('[') => explained = true,
                key => assert!(explained, "no comment above {key}"),
            }
        }
    }
}
