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
    ] {
        if wrong {
            return Err(value(key, problem));
        }
    }
    let problems = [
        config.storage.problem(),
        config.redis.problem(),
        config.lease.problem(),
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
mod tests;
