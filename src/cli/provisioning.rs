//! Things, channels and what connects them.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use rollcall_domain::identity::Timestamp;
use rollcall_grpc::api;
use rollcall_grpc::client::Client;
use serde_json::{Value, json};

use super::output::Output;

/// Things made by one call.
const CHUNK: usize = 500;

#[derive(Subcommand)]
pub(super) enum Things {
    /// Make one thing, or many with --count
    Create(CreateThings),
    /// List things in the order they were made
    List(Page),
    /// Show a thing and, unless keys are shown only once, its key
    Show { thing: String },
    /// Give a thing another key; its sessions end
    RotateKey {
        /// Id of the thing
        thing: String,
        /// The new key [default: a generated one]
        #[arg(long)]
        key: Option<String>,
    },
    /// Shut a thing out; its sessions end
    Disable { thing: String },
    /// Let a thing in again
    Enable { thing: String },
}

#[derive(Args)]
pub(super) struct CreateThings {
    /// Name; with --count a number follows it
    #[arg(default_value = "")]
    name: String,
    /// The key [default: a generated one]
    #[arg(long, conflicts_with = "count")]
    key: Option<String>,
    /// How many
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    count: u32,
    /// Write thing_id,thing_key,channel_id to this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Connect the things to this channel
    #[arg(long, value_name = "ID", conflicts_with = "channels")]
    channel: Option<String>,
    /// Make so many channels and connect the things to them in turn [default with --csv: 1]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    channels: Option<u32>,
}

#[derive(Args)]
pub(super) struct Page {
    #[arg(long, default_value_t = 0)]
    offset: u64,
    #[arg(long, default_value_t = 100)]
    limit: u64,
}

impl Page {
    pub(super) fn message(&self) -> api::Page {
        api::Page {
            offset: self.offset,
            limit: self.limit,
        }
    }
}

impl Things {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run(client, output).await,
            Self::List(page) => {
                let listing = client.list_things(page.message()).await?;
                let value = json!({
                    "total": listing.total,
                    "things": listing.things.iter().map(thing).collect::<Vec<_>>(),
                });
                let rows: Vec<_> = listing
                    .things
                    .into_iter()
                    .map(|it| {
                        [
                            it.id,
                            it.status,
                            Timestamp(it.created_at).rfc3339(),
                            it.name,
                        ]
                    })
                    .collect();
                Ok(output.table(&value, ["ID", "STATUS", "CREATED", "NAME"], &rows)?)
            }
            Self::Show { thing } => show(client, output, thing).await,
            Self::RotateKey { thing, key } => {
                let created = client.rotate_key(thing, key.unwrap_or_default()).await?;
                show_keys(output, &[created])
            }
            Self::Disable { thing } => set_status(client, output, thing, false).await,
            Self::Enable { thing } => set_status(client, output, thing, true).await,
        }
    }
}

async fn show(client: &Client, output: Output, id: String) -> anyhow::Result<()> {
    let api::ShowThingResponse { thing: it, key } = client.show_thing(id).await?;
    let it = it.context("the server shows no thing")?;
    let mut value = thing(&it);
    value["key"] = json!(key);
    let created = Timestamp(it.created_at).rfc3339();
    let key = key.unwrap_or_else(|| "(not kept: rotate-key makes another)".to_owned());
    let rows = [[it.id, it.status, created, it.name, key]];
    Ok(output.table(&value, ["ID", "STATUS", "CREATED", "NAME", "KEY"], &rows)?)
}

async fn set_status(
    client: &Client,
    output: Output,
    id: String,
    enabled: bool,
) -> anyhow::Result<()> {
    let changed = client.set_status(id, enabled).await?;
    Ok(output.say(
        &thing(&changed),
        &format!("{} is {}", changed.id, changed.status),
    )?)
}

fn show_keys(output: Output, created: &[api::CreatedThing]) -> anyhow::Result<()> {
    let values: Vec<Value> = created.iter().map(created_thing).collect();
    let value = match <[Value; 1]>::try_from(values) {
        Ok([one]) => one,
        Err(many) => json!({ "things": many }),
    };
    let rows: Vec<_> = created
        .iter()
        .map(|it| [id_of(it), it.key.clone()])
        .collect();
    Ok(output.table(&value, ["ID", "KEY"], &rows)?)
}

fn id_of(created: &api::CreatedThing) -> String {
    created
        .thing
        .as_ref()
        .map(|thing| thing.id.clone())
        .unwrap_or_default()
}

fn thing(thing: &api::Thing) -> Value {
    json!({
        "id": thing.id,
        "name": thing.name,
        "tags": thing.tags,
        "metadata": serde_json::from_str::<Value>(&thing.metadata).unwrap_or_default(),
        "status": thing.status,
        "created_at": Timestamp(thing.created_at).rfc3339(),
        "updated_at": thing.updated_at.map(|at| Timestamp(at).rfc3339()),
    })
}

fn created_thing(created: &api::CreatedThing) -> Value {
    let mut value = created.thing.as_ref().map(thing).unwrap_or_default();
    value["key"] = json!(created.key);
    value
}

impl CreateThings {
    async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        // Opened first: keys that cannot be written down would be lost.
        let mut csv = self.csv.as_deref().map(open_new).transpose()?;
        let channels = self.prepare_channels(client).await?;
        if let Some(csv) = &mut csv {
            writeln!(csv, "thing_id,thing_key,channel_id")?;
        }
        let bar = progress(self.count);
        let mut all = Vec::new();
        let mut made = 0;
        while made < self.count as usize {
            let count = CHUNK.min(self.count as usize - made);
            let created = client.create_things(self.new_things(made, count)).await?;
            if let Some(csv) = &mut csv {
                for (n, created) in (made..).zip(&created) {
                    let channel = channels
                        .get(n % channels.len().max(1))
                        .map_or("", String::as_str);
                    writeln!(csv, "{},{},{channel}", id_of(created), created.key)?;
                }
                csv.flush()?;
            }
            connect_in_turn(client, &created, &channels, made).await?;
            if csv.is_none() {
                all.extend(created);
            }
            made += count;
            bar.set_position(made as u64);
        }
        bar.finish_and_clear();
        match &self.csv {
            Some(path) => {
                let value = json!({ "created": made, "channels": channels, "csv": path });
                Ok(output.say(&value, &format!("{made} things are in {}", path.display()))?)
            }
            None => show_keys(output, &all),
        }
    }

    /// The channels that the things are connected to.
    async fn prepare_channels(&self, client: &Client) -> anyhow::Result<Vec<String>> {
        if let Some(channel) = &self.channel {
            return Ok(vec![channel.clone()]);
        }
        let count = self.channels.unwrap_or(self.csv.is_some().into());
        let mut ids = Vec::with_capacity(count as usize);
        while ids.len() < count as usize {
            let new = (ids.len()..count as usize)
                .take(CHUNK)
                .map(|n| api::NewChannel {
                    name: format!("{} {}", self.name, n + 1).trim().to_owned(),
                    metadata: String::new(),
                });
            let created = client.create_channels(new.collect()).await?;
            ids.extend(created.into_iter().map(|channel| channel.id));
        }
        Ok(ids)
    }

    fn new_things(&self, made: usize, count: usize) -> Vec<api::NewThing> {
        let name = |n: usize| match self.count {
            1 => self.name.clone(),
            _ => format!("{} {}", self.name, n + 1).trim().to_owned(),
        };
        let new = |n| api::NewThing {
            name: name(n),
            tags: Vec::new(),
            metadata: String::new(),
            key: self.key.clone().unwrap_or_default(),
        };
        (made..made + count).map(new).collect()
    }
}

/// A file for keys. What an earlier file has may be the only copy there is.
fn open_new(path: &Path) -> anyhow::Result<BufWriter<File>> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    let len = file.metadata()?.len();
    anyhow::ensure!(
        len == 0,
        "{} is not empty, and may have the only copy of a key: name another file",
        path.display()
    );
    Ok(BufWriter::new(file))
}

/// Connects the things, the first of which is the `offset`th of all, to the channels in turn.
async fn connect_in_turn(
    client: &Client,
    created: &[api::CreatedThing],
    channels: &[String],
    offset: usize,
) -> anyhow::Result<()> {
    for (place, channel) in channels.iter().enumerate() {
        let members = (offset..)
            .zip(created)
            .filter(|(n, _)| n % channels.len() == place);
        let things: Vec<String> = members.map(|(_, created)| id_of(created)).collect();
        if things.is_empty() {
            continue;
        }
        let actions = vec!["m_read".to_owned(), "m_write".to_owned()];
        let channels = vec![channel.clone()];
        client
            .grant(api::ConnectRequest {
                things,
                channels,
                actions,
            })
            .await?;
    }
    Ok(())
}

/// On a terminal only, and only if there is something to wait for.
fn progress(count: u32) -> ProgressBar {
    if count as usize <= CHUNK {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} things, {eta} left");
    ProgressBar::new(count.into()).with_style(style.expect("invariant: a valid template"))
}

#[derive(Subcommand)]
pub(super) enum Channels {
    /// Make a channel
    Create {
        #[arg(default_value = "")]
        name: String,
    },
    /// List channels in the order they were made
    List(Page),
    /// Close a channel: nobody may do anything there, and subscriptions end
    Disable { channel: String },
    /// Open a channel again
    Enable { channel: String },
}

impl Channels {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Create { name } => {
                let new = api::NewChannel {
                    name,
                    metadata: String::new(),
                };
                let created = client.create_channels(vec![new]).await?;
                let created = created.first().context("the server made no channel")?;
                Ok(output.say(&channel(created), &created.id)?)
            }
            Self::List(page) => {
                let listing = client.list_channels(page.message()).await?;
                let value = json!({
                    "total": listing.total,
                    "channels": listing.channels.iter().map(channel).collect::<Vec<_>>(),
                });
                let rows: Vec<_> = listing
                    .channels
                    .into_iter()
                    .map(|it| {
                        [
                            it.id,
                            it.status,
                            Timestamp(it.created_at).rfc3339(),
                            it.name,
                        ]
                    })
                    .collect();
                Ok(output.table(&value, ["ID", "STATUS", "CREATED", "NAME"], &rows)?)
            }
            Self::Disable { channel } => set_channel_status(client, output, channel, false).await,
            Self::Enable { channel } => set_channel_status(client, output, channel, true).await,
        }
    }
}

async fn set_channel_status(
    client: &Client,
    output: Output,
    id: String,
    enabled: bool,
) -> anyhow::Result<()> {
    let changed = client.set_channel_status(id, enabled).await?;
    let text = format!("{} is {}", changed.id, changed.status);
    Ok(output.say(&channel(&changed), &text)?)
}

fn channel(channel: &api::Channel) -> Value {
    json!({
        "id": channel.id,
        "name": channel.name,
        "metadata": serde_json::from_str::<Value>(&channel.metadata).unwrap_or_default(),
        "status": channel.status,
        "created_at": Timestamp(channel.created_at).rfc3339(),
        "updated_at": channel.updated_at.map(|at| Timestamp(at).rfc3339()),
    })
}

#[derive(Args)]
pub(super) struct Connect {
    /// Id of the thing
    thing: String,
    /// Id of the channel
    channel: String,
    /// What it may do there: m_read (subscribe), m_write (publish)
    #[arg(long, value_delimiter = ',', default_value = "m_read,m_write")]
    actions: Vec<String>,
}

impl Connect {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let Self {
            thing,
            channel,
            actions,
        } = self;
        let value = json!({ "thing_id": thing, "channel_id": channel, "actions": actions });
        let text = format!("{thing} may {} on {channel}", actions.join(" and "));
        let (things, channels) = (vec![thing], vec![channel]);
        client
            .grant(api::ConnectRequest {
                things,
                channels,
                actions,
            })
            .await?;
        Ok(output.say(&value, &text)?)
    }
}

#[derive(Args)]
pub(super) struct Disconnect {
    /// Id of the thing
    thing: String,
    /// Id of the channel
    channel: String,
}

impl Disconnect {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let Self { thing, channel } = self;
        let value = json!({ "thing_id": thing, "channel_id": channel });
        let text = format!("{thing} may do nothing on {channel}");
        let (things, channels) = (vec![thing], vec![channel]);
        client
            .revoke(api::DisconnectRequest { things, channels })
            .await?;
        Ok(output.say(&value, &text)?)
    }
}
