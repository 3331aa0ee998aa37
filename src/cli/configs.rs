//! `rollcall configs`: what devices are given that come with an external id and key alone.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use rollcall_domain::identity::Secret;
use rollcall_grpc::bootstrap_api as api;
use rollcall_grpc::client::Client;
use serde_json::{Value, json};

use super::aside::SetAside;
use super::output::Output;
use super::page::Page;
use crate::secrets;

#[derive(Subcommand)]
pub(super) enum Configs {
    /// Make a configuration, and a thing for it
    Create(Create),
    /// List configurations in the order they were made
    List(List),
    /// Show a configuration with its keys and channels
    Show { thing: String },
    /// Set name and content, both
    Update(Update),
    /// Set certificates and private key, all of them
    Certs(Certs),
    /// Set the channels; an active thing is connected to new ones and disconnected from the others
    Connections {
        thing: String,
        /// Channels; without any, there are none
        channels: Vec<String>,
    },
    /// Connect the thing to the channels of its configuration
    Enable { thing: String },
    /// Disconnect the thing from the channels of its configuration
    Disable { thing: String },
    /// Remove a configuration; the thing stays
    Remove { thing: String },
    /// Ask as the device would: for an external id and key, everything
    Bootstrap(Bootstrap),
    /// Events of things that made no sense: what they were, and what becomes of them
    #[command(subcommand)]
    SetAside(SetAside),
}

#[derive(Args)]
pub(super) struct Create {
    /// What the device calls itself, such as its serial number
    external_id: String,
    /// What it proves that with [default: a generated one, which is shown]
    #[arg(long, value_name = "KEY")]
    external_key: Option<String>,
    /// A thing that is there [default: one is made]
    #[arg(long, default_value = "")]
    thing: String,
    #[arg(long, default_value = "")]
    name: String,
    /// A channel; may be repeated
    #[arg(long = "channel", value_name = "CHANNEL")]
    channels: Vec<String>,
    #[command(flatten)]
    content: Content,
    #[command(flatten)]
    pems: Pems,
}

#[derive(Args)]
#[group(multiple = false)]
pub(super) struct Content {
    /// What the device is given besides
    #[arg(long, value_name = "TEXT")]
    content: Option<String>,
    /// The same, from a file
    #[arg(long, value_name = "FILE")]
    content_file: Option<PathBuf>,
}

impl Content {
    fn read(self) -> anyhow::Result<String> {
        match self.content_file {
            Some(path) => read(&path),
            None => Ok(self.content.unwrap_or_default()),
        }
    }
}

#[derive(Args)]
pub(super) struct Pems {
    /// The certificate of the device
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE")]
    client_key: Option<PathBuf>,
    /// The certificate of the authority it is to trust
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
}

impl Pems {
    fn read(self) -> anyhow::Result<api::Certificates> {
        let text = |path: Option<PathBuf>| path.map_or(Ok(String::new()), |path| read(&path));
        Ok(api::Certificates {
            client_cert: text(self.client_cert)?,
            client_key: text(self.client_key)?,
            ca_cert: text(self.ca_cert)?,
        })
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path);
    text.with_context(|| format!("cannot read {}", path.display()))
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    page: Page,
    /// Only active ones
    #[arg(long, conflicts_with = "inactive")]
    active: bool,
    /// Only inactive ones
    #[arg(long)]
    inactive: bool,
    #[arg(long)]
    external_id: Option<String>,
    #[arg(long)]
    thing: Option<String>,
    /// A part of the name, in capitals or not
    #[arg(long)]
    name: Option<String>,
}

#[derive(Args)]
pub(super) struct Update {
    thing: String,
    #[arg(long, default_value = "")]
    name: String,
    #[command(flatten)]
    content: Content,
}

#[derive(Args)]
pub(super) struct Certs {
    thing: String,
    #[command(flatten)]
    pems: Pems,
}

#[derive(Args)]
pub(super) struct Bootstrap {
    external_id: String,
    /// The external key
    #[arg(long, value_name = "KEY")]
    external_key: String,
    /// Ask and be answered encrypted, with the key in this file: secrets/bootstrap.key of the server
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl Configs {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let configs = client.configs();
        match self {
            Self::Create(create) => return create.run(client, output).await,
            Self::List(list) => return list.run(client, output).await,
            Self::Bootstrap(bootstrap) => return bootstrap.run(client, output).await,
            Self::SetAside(aside) => return aside.run(client, output).await,
            Self::Show { thing } => {
                let request = api::ViewConfigRequest { thing_id: thing };
                return show(output, configs.view_config(request).await?);
            }
            Self::Update(update) => {
                let request = api::UpdateConfigRequest {
                    thing_id: update.thing,
                    name: update.name,
                    content: update.content.read()?,
                };
                configs.update_config(request).await?;
            }
            Self::Certs(certs) => {
                let request = api::UpdateCertificatesRequest {
                    thing_id: certs.thing,
                    certificates: Some(certs.pems.read()?),
                };
                configs.update_certificates(request).await?;
            }
            Self::Connections { thing, channels } => {
                let request = api::UpdateConnectionsRequest {
                    thing_id: thing,
                    channels,
                };
                configs.update_connections(request).await?;
            }
            Self::Enable { thing } => {
                let state = api::State::Active.into();
                let request = api::ChangeStateRequest {
                    thing_id: thing,
                    state,
                };
                configs.change_state(request).await?;
            }
            Self::Disable { thing } => {
                let state = api::State::Inactive.into();
                let request = api::ChangeStateRequest {
                    thing_id: thing,
                    state,
                };
                configs.change_state(request).await?;
            }
            Self::Remove { thing } => {
                let request = api::RemoveConfigRequest { thing_id: thing };
                configs.remove_config(request).await?;
            }
        }
        output.say(&json!({}), "done")?;
        Ok(())
    }
}

impl Create {
    async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let generated = || Secret::generate().expose().to_owned();
        let external_key = self.external_key.unwrap_or_else(generated);
        let request = api::AddConfigRequest {
            thing_id: self.thing,
            external_id: self.external_id.clone(),
            external_key: external_key.clone(),
            name: self.name,
            content: self.content.read()?,
            certificates: Some(self.pems.read()?),
            channels: self.channels,
        };
        let thing = client.configs().add_config(request).await?.thing_id;
        let value = json!({
            "thing_id": thing,
            "external_id": self.external_id,
            "external_key": external_key,
        });
        let row = [thing, self.external_id, external_key];
        output.table(&value, ["THING", "EXTERNAL ID", "EXTERNAL KEY"], &[row])?;
        Ok(())
    }
}

impl List {
    async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let state = match (self.active, self.inactive) {
            (true, _) => Some(api::State::Active.into()),
            (_, true) => Some(api::State::Inactive.into()),
            _ => None,
        };
        let request = api::ListConfigsRequest {
            offset: self.page.offset,
            limit: self.page.limit,
            state,
            external_id: self.external_id,
            thing_id: self.thing,
            thing_key: None,
            name: self.name,
        };
        let found = client.configs().list_configs(request).await?;
        let configs: Vec<Value> = found.configs.iter().map(value).collect();
        let value = json!({ "configs": configs, "total": found.total });
        let rows = found.configs.into_iter().map(|config| {
            let state = state_name(config.state).to_owned();
            [config.thing_id, config.external_id, state, config.name]
        });
        let rows: Vec<[String; 4]> = rows.collect();
        output.table(&value, ["THING", "EXTERNAL ID", "STATE", "NAME"], &rows)?;
        Ok(())
    }
}

impl Bootstrap {
    async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let configs = client.configs();
        let Some(path) = self.key_file else {
            let request = api::FetchRequest {
                external_id: self.external_id,
                external_key: self.external_key,
            };
            return provide(output, &provision(configs.fetch(request).await?)?);
        };
        let key = std::fs::read(&path);
        let key = key.with_context(|| format!("cannot read {}", path.display()))?;
        let Some(cipher) = secrets::device_cipher(&key) else {
            bail!("{} has not 16, 24 or 32 bytes", path.display());
        };
        let request = api::FetchRequest {
            external_id: self.external_id,
            external_key: cipher.seal_key(&Secret::new(self.external_key)),
        };
        let sealed = configs.fetch_secure(request).await?.sealed;
        let opened = cipher.open(&sealed).unwrap_or_default();
        let opened = serde_json::from_slice(&opened);
        let opened: Value = opened.context("the answer is under another key")?;
        provide(output, &opened)
    }
}

fn provide(output: Output, provision: &Value) -> anyhow::Result<()> {
    match output.json {
        true => output.line(&provision.to_string())?,
        false => output.line(&serde_json::to_string_pretty(provision)?)?,
    }
    Ok(())
}

/// As REST has it.
fn provision(provision: api::Provision) -> anyhow::Result<Value> {
    let mut value = json!({
        "thing_id": provision.thing_id,
        "thing_key": provision.thing_key,
        "channels": channels(&provision.channels)?,
    });
    let pems = provision.certificates.unwrap_or_default();
    for (name, text) in [
        ("content", provision.content),
        ("client_cert", pems.client_cert),
        ("client_key", pems.client_key),
        ("ca_cert", pems.ca_cert),
    ] {
        if !text.is_empty() {
            value[name] = text.into();
        }
    }
    Ok(value)
}

fn channels(channels: &[api::Channel]) -> anyhow::Result<Vec<Value>> {
    let value = |channel: &api::Channel| {
        let metadata: Value = serde_json::from_str(&channel.metadata)?;
        Ok(json!({ "id": channel.id, "name": channel.name, "metadata": metadata }))
    };
    channels.iter().map(value).collect()
}

fn show(output: Output, config: api::Config) -> anyhow::Result<()> {
    let mut value = value(&config);
    value["channels"] = channels(&config.channels)?.into();
    let pems = config.certificates.unwrap_or_default();
    let channels = config.channels.iter().map(|it| it.id.clone());
    let lines = [
        ("thing", config.thing_id),
        ("thing key", config.thing_key.unwrap_or_default()),
        ("owner", config.owner_id),
        ("external id", config.external_id),
        ("external key", config.external_key),
        ("name", config.name),
        ("state", state_name(config.state).to_owned()),
        ("channels", channels.collect::<Vec<_>>().join(" ")),
        ("content", config.content),
        ("client certificate", first_line(&pems.client_cert)),
        ("authority", first_line(&pems.ca_cert)),
    ];
    let rows = lines.map(|(name, text)| [name.to_owned(), text]);
    output.table(&value, ["WHAT", "IS"], &rows)?;
    Ok(())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Without channels.
fn value(config: &api::Config) -> Value {
    let pems = config.certificates.clone().unwrap_or_default();
    json!({
        "thing_id": config.thing_id,
        "thing_key": config.thing_key,
        "owner": config.owner_id,
        "external_id": config.external_id,
        "external_key": config.external_key,
        "name": config.name,
        "content": config.content,
        "client_cert": pems.client_cert,
        "ca_cert": pems.ca_cert,
        "state": config.state,
    })
}

fn state_name(state: i32) -> &'static str {
    match state {
        0 => "inactive",
        _ => "active",
    }
}
