//! `rollcall up`.

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::output::Output;
use crate::config::Config;
use crate::secrets::{self, Secrets};
use crate::server::Server;
use crate::{demo, telemetry};

#[derive(Args)]
pub(super) struct Up {
    /// Make a channel and two things to try, and show how
    #[arg(long)]
    demo: bool,
    /// Relay events to this Redis: redis://host:6379
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

impl Up {
    pub(super) fn add_flags(&self, flags: &mut Vec<(&str, String)>) {
        if let Some(url) = &self.redis {
            flags.push(("redis.url", url.clone()));
        }
    }

    pub(super) async fn run(self, config: &Config, output: Output) -> anyhow::Result<()> {
        telemetry::init(&config.log)?;
        // From the beginning, so that a signal during the start counts.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        expect_files(config);
        let secrets = Secrets::open(&config.data)?;
        let server = Server::start(config, &secrets).await?;
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
        if self.demo {
            let lines = demo::prepare(&server, &secrets).await?;
            output.say(&json!({ "demo": lines }), &lines.join("\n"))?;
        }
        self.announce(&server, config, output)?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping: once more to stop at once");
        tokio::select! {
            () = server.stop() => Ok(()),
            _ = interrupt.recv() => anyhow::bail!("stopped before everything was kept"),
            _ = terminate.recv() => anyhow::bail!("stopped before everything was kept"),
        }
    }

    fn announce(&self, server: &Server, config: &Config, output: Output) -> std::io::Result<()> {
        let addresses = &server.addresses;
        let mqtt: Vec<String> = addresses.mqtt.iter().map(ToString::to_string).collect();
        let value = json!({
            "ready": {
                "mqtt": mqtt,
                "grpc": addresses.grpc.to_string(),
                "http": addresses.http.to_string(),
                "instance": config.instance,
            },
        });
        output.say(
            &value,
            &format!(
                "ready mqtt={} grpc={} http={} instance={}",
                mqtt.join(","),
                addresses.grpc,
                addresses.http,
                config.instance,
            ),
        )
    }
}

/// Allows this process as many open files as it may have, and warns if clients need more.
fn expect_files(config: &Config) {
    // Besides clients: databases, listeners, Redis, what the runtime needs.
    const OTHERS: u64 = 256;
    let needed = config.mqtt.max_connections as u64 + OTHERS;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < needed => tracing::warn!(
            limit,
            needed,
            "fewer open files are allowed than mqtt.max_connections needs: see `ulimit -n`"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot find how many files may be open"),
    }
}
