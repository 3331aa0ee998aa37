//! `rollcall up`, and its parts alone.

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::output::Output;
use crate::config::{self, Config};
use crate::secrets::{self, Secrets};
use crate::server::{Role, Server};
use crate::{demo, telemetry};

/// What every command takes that runs a server.
#[derive(Args)]
pub(super) struct Serve {
    /// Relay events to this Redis: redis://host:6379
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

#[derive(Args)]
pub(super) struct Up {
    /// Make a channel, two things and a device to try, and show how
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    pub(super) serve: Serve,
}

impl Up {
    pub(super) async fn run(self, config: &Config, output: Output) -> anyhow::Result<()> {
        serve(Role::All, self.demo, config, output).await
    }
}

impl Serve {
    pub(super) fn add_flags(&self, flags: &mut Vec<(&str, String)>) {
        if let Some(url) = &self.redis {
            flags.push(("redis.url", url.clone()));
        }
    }

    pub(super) async fn run(
        self,
        role: Role,
        config: &Config,
        output: Output,
    ) -> anyhow::Result<()> {
        serve(role, false, config, output).await
    }
}

/// Runs until it is told to stop.
async fn serve(role: Role, demo: bool, config: &Config, output: Output) -> anyhow::Result<()> {
    telemetry::init(&config.log)?;
    // From the beginning, so that a signal during the start counts.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut config = config.clone();
    role.leave_out_others(&mut config);
    config::check_role(&config, role)?;
    fit_into_files(&mut config, role)?;
    let config = &config;
    let secrets = Secrets::open(&config.data).with_context(|| {
        let folder = config.data.display();
        format!("cannot use {folder} as the data folder: --data names another one")
    })?;
    let mut server = tokio::select! {
        server = Server::start(config, role, &secrets) => server?,
        _ = interrupt.recv() => anyhow::bail!("stopped before it was ready"),
        _ = terminate.recv() => anyhow::bail!("stopped before it was ready"),
    };
    if let Some(password) = &server.first_password {
        let (identity, token) = (&config.admin.identity, secrets::token_path(&config.data));
        let value = json!({
            "admin": { "identity": identity, "password": password.expose() },
            "token_file": token,
        });
        output.say(
            &value,
            &format!(
                "First start. The administrator is {identity}, password {}\n\
                 It is not shown again. The command line uses the token in {}\n",
                password.expose(),
                token.display(),
            ),
        )?;
    }
    if demo {
        let lines = demo::prepare(&server, &secrets, &config.data).await?;
        output.say(&json!({ "demo": lines }), &lines.join("\n"))?;
    }
    announce(&server, config, output)?;
    let failure = loop {
        tokio::select! {
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
            refused = server.failed() => break Some(refused),
            // What comes of it is logged.
            _ = hangup.recv() => {
                let reload = server.reload();
                tokio::task::spawn_blocking(move || reload.reload());
            }
        }
    };
    tracing::info!("stopping: once more to stop at once");
    let deadline = config.mqtt.drain.deadline;
    tokio::select! {
        () = server.stop() => failure.map_or(Ok(()), |failure| Err(failure.into())),
        _ = interrupt.recv() => anyhow::bail!("stopped before everything was kept"),
        _ = terminate.recv() => anyhow::bail!("stopped before everything was kept"),
        () = tokio::time::sleep(deadline) => {
            anyhow::bail!("mqtt.drain.deadline was over before everything was kept")
        }
    }
}

fn announce(server: &Server, config: &Config, output: Output) -> std::io::Result<()> {
    let addresses = &server.addresses;
    let mut others = vec![
        ("grpc", addresses.grpc.to_string()),
        ("http", addresses.http.to_string()),
    ];
    for (key, address) in &addresses.rest {
        others.push((key, address.to_string()));
    }
    others.push(("instance", config.instance.clone()));
    let mut ready = serde_json::Map::new();
    let mut line = "ready".to_owned();
    for (name, addresses) in &addresses.mqtt {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        line += &format!(" {name}={}", addresses.join(","));
        ready.insert(name.to_string(), json!(addresses));
    }
    for (name, value) in others {
        line += &format!(" {name}={value}");
        ready.insert(name.to_owned(), json!(value));
    }
    output.say(&json!({ "ready": ready }), &line)
}

/// Allows this process as many open files as it may have, and a front in it no more connections than leave some for
/// databases, Redis and those who look after it.
///
/// # Errors
/// Databases alone take more.
fn fit_into_files(config: &mut Config, role: Role) -> anyhow::Result<()> {
    const DATABASES_AND_REDIS: usize = 64;
    let http = &config.http;
    let services = [http.users, http.things, http.bootstrap];
    let sites = 1 + services.iter().flatten().count();
    let edges = config.grpc.max_connections + sites * http.max_connections;
    let others = (DATABASES_AND_REDIS + edges) as u64;
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "cannot find how many files may be open");
            return Ok(());
        }
    };
    ensure!(
        limit >= DATABASES_AND_REDIS as u64,
        "no more than {limit} files may be open, and {DATABASES_AND_REDIS} are needed: raise `ulimit -n`"
    );
    if !role.has(Role::Mqtt) {
        return Ok(());
    }
    let room = usize::try_from(limit - others.min(limit / 2)).unwrap_or(usize::MAX);
    if room < config.mqtt.max_connections {
        tracing::warn!(
            files = limit,
            max_connections = room,
            "too few open files for mqtt.max_connections: raise `ulimit -n`"
        );
        config.mqtt.max_connections = room;
    }
    Ok(())
}
