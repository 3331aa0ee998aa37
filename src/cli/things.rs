//! `rollcall things`.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use rollcall_domain::identity::{ChannelId, Timestamp};
use rollcall_grpc::client::Client;
use rollcall_grpc::things_api as api;
use serde_json::{Value, json};

use super::output::Output;
use super::page::Page;
use super::{channels, groups};

/// Things made by one call.
const CHUNK: usize = 500;

#[derive(Subcommand)]
pub(super) enum Things {
    /// Make one thing, or many with --count
    Create(CreateThings),
    /// List things in the order they were made
    List(ListThings),
    /// Show a thing and, unless keys are shown only once, its key
    Show { thing: String },
    /// Give a thing another name, other metadata
    Update {
        thing: String,
        #[arg(long)]
        name: Option<String>,
        /// A JSON object
        #[arg(long, value_name = "JSON")]
        metadata: Option<String>,
    },
    /// Give a thing these tags in place of those it has
    Tags { thing: String, tags: Vec<String> },
    /// Give a thing another key; its sessions end
    RotateKey {
        /// Id of the thing
        thing: String,
        /// The new key [default: a generated one]
        #[arg(long)]
        key: Option<String>,
    },
    /// Give a thing to another user
    Owner { thing: String, user: String },
    /// Shut a thing out; its sessions end
    Disable { thing: String },
    /// Let a thing in again
    Enable { thing: String },
    /// List the channels that a thing is connected to
    Channels {
        thing: String,
        #[command(flatten)]
        page: Page,
    },
}

#[derive(Args)]
pub(super) struct CreateThings {
    /// Name; with --count a number follows it
    #[arg(default_value = "")]
    name: String,
    /// The id [default: a generated one]
    #[arg(long, conflicts_with = "count")]
    id: Option<String>,
    /// The key [default: a generated one]
    #[arg(long, conflicts_with = "count")]
    key: Option<String>,
    /// A tag; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// A JSON object
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Whose it is [default: the caller's]
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
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
pub(super) struct ListThings {
    #[command(flatten)]
    page: Page,
    /// enabled, disabled or all
    #[arg(long, default_value = "all")]
    status: String,
    /// The whole name
    #[arg(long)]
    name: Option<String>,
    #[arg(long)]
    tag: Option<String>,
    /// Id of a user
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// A JSON object that the metadata has to contain
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// mine, shared or all
    #[arg(long, default_value = "all")]
    visibility: String,
}

impl Things {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let things = client.things();
        match self {
            Self::Create(create) => create.run(client, output).await,
            Self::List(list) => list.run(client, output).await,
            Self::Show { thing } => {
                let shown = things.view_thing(api::ViewThingRequest { id: thing });
                show(output, &shown.await?)
            }
            Self::Update {
                thing,
                name,
                metadata,
            } => {
                let update = api::UpdateThingRequest {
                    id: thing,
                    name,
                    metadata,
                };
                show_all(output, &[things.update_thing(update).await?], None)
            }
            Self::Tags { thing, tags } => {
                let tag = api::UpdateThingTagsRequest { id: thing, tags };
                show_all(output, &[things.update_thing_tags(tag).await?], None)
            }
            Self::RotateKey { thing, key } => {
                let request = api::UpdateThingKeyRequest {
                    id: thing,
                    key: key.unwrap_or_default(),
                };
                show_keys(output, &[things.update_thing_key(request).await?])
            }
            Self::Owner { thing, user } => {
                let request = api::UpdateThingOwnerRequest {
                    id: thing,
                    owner: user,
                };
                let given = things.update_thing_owner(request).await?;
                let text = format!("{} is of {}", given.id, given.owner);
                Ok(output.say(&thing_json(&given), &text)?)
            }
            Self::Disable { thing } => {
                let disable = api::DisableThingRequest { id: thing };
                say_status(output, &things.disable_thing(disable).await?)
            }
            Self::Enable { thing } => {
                let enable = api::EnableThingRequest { id: thing };
                say_status(output, &things.enable_thing(enable).await?)
            }
            Self::Channels { thing, page } => {
                let request = api::ListChannelsByThingRequest {
                    thing_id: thing,
                    page: page.message()?,
                    filter: Some(groups::everything()),
                };
                let listing = client.channels().list_channels_by_thing(request).await?;
                channels::show_listing(output, &listing)
            }
        }
    }
}

impl ListThings {
    async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let filter = api::ThingFilter {
            status: self.status,
            name: self.name,
            tag: self.tag,
            owner: self.owner,
            metadata: self.metadata.unwrap_or_default(),
        };
        let request = api::ListThingsRequest {
            page: self.page.message()?,
            filter: Some(filter),
            visibility: self.visibility,
        };
        let listing = client.things().list_things(request).await?;
        show_all(output, &listing.things, Some(listing.total))
    }
}

/// A table; as JSON, with a total, a list.
pub(super) fn show_all(
    output: Output,
    things: &[api::Thing],
    total: Option<u64>,
) -> anyhow::Result<()> {
    let mut values: Vec<Value> = things.iter().map(thing_json).collect();
    let value = match total {
        Some(total) => json!({ "total": total, "things": values }),
        None => values.pop().unwrap_or_default(),
    };
    let rows: Vec<_> = things
        .iter()
        .map(|it| {
            let created = Timestamp(it.created_at).rfc3339();
            let (id, name) = (it.id.clone(), it.name.clone());
            [id, it.status.clone(), created, name, it.tags.join(",")]
        })
        .collect();
    let headings = ["ID", "STATUS", "CREATED", "NAME", "TAGS"];
    Ok(output.table(&value, headings, &rows)?)
}

fn show(output: Output, it: &api::Thing) -> anyhow::Result<()> {
    let key = it.key.clone();
    let key = key.unwrap_or_else(|| "(not kept: rotate-key makes another)".to_owned());
    let created = Timestamp(it.created_at).rfc3339();
    let rows = [[
        it.id.clone(),
        it.status.clone(),
        created,
        it.name.clone(),
        key,
    ]];
    let mut value = thing_json(it);
    value["key"] = json!(it.key);
    Ok(output.table(&value, ["ID", "STATUS", "CREATED", "NAME", "KEY"], &rows)?)
}

fn say_status(output: Output, changed: &api::Thing) -> anyhow::Result<()> {
    let text = format!("{} is {}", changed.id, changed.status);
    Ok(output.say(&thing_json(changed), &text)?)
}

fn show_keys(output: Output, created: &[api::Thing]) -> anyhow::Result<()> {
    let values: Vec<Value> = created.iter().map(thing_json).collect();
    let value = match <[Value; 1]>::try_from(values) {
        Ok([one]) => one,
        Err(many) => json!({ "things": many }),
    };
    let rows: Vec<_> = created
        .iter()
        .map(|it| [it.id.clone(), it.key.clone().unwrap_or_default()])
        .collect();
    Ok(output.table(&value, ["ID", "KEY"], &rows)?)
}

/// With its key where the server tells it.
fn thing_json(thing: &api::Thing) -> Value {
    let mut value = json!({
        "id": thing.id,
        "owner": thing.owner,
        "name": thing.name,
        "tags": thing.tags,
        "identity": thing.identity,
        "metadata": serde_json::from_str::<Value>(&thing.metadata).unwrap_or_default(),
        "status": thing.status,
        "created_at": Timestamp(thing.created_at).rfc3339(),
        "updated_at": thing.updated_at.map(|at| Timestamp(at).rfc3339()),
        "updated_by": thing.updated_by,
    });
    if let Some(key) = &thing.key {
        value["key"] = json!(key);
    }
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
            let things = self.new_things(made, count);
            let request = api::CreateThingsRequest { things };
            let created = client.things().create_things(request).await?.things;
            if let Some(csv) = &mut csv {
                for (n, created) in (made..).zip(&created) {
                    let channel = channels
                        .get(n % channels.len().max(1))
                        .map_or("", String::as_str);
                    let key = created.key.as_deref().unwrap_or_default();
                    writeln!(csv, "{},{key},{channel}", created.id)?;
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
        let count = self.channels.unwrap_or(self.csv.is_some().into()) as usize;
        // Names of an owner's channels differ, also from those of an earlier command.
        let mark = &ChannelId::generate().to_string()[..8];
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            let new = (ids.len()..count).take(CHUNK).map(|n| api::NewChannel {
                name: format!("{} {} {mark}", self.name, n + 1).trim().to_owned(),
                owner: self.owner.clone().unwrap_or_default(),
                ..api::NewChannel::default()
            });
            let request = api::CreateChannelsRequest {
                channels: new.collect(),
            };
            let created = client.channels().create_channels(request).await?;
            ids.extend(created.channels.into_iter().map(|channel| channel.id));
        }
        Ok(ids)
    }

    fn new_things(&self, made: usize, count: usize) -> Vec<api::NewThing> {
        let name = |n: usize| match self.count {
            1 => self.name.clone(),
            _ => format!("{} {}", self.name, n + 1).trim().to_owned(),
        };
        let new = |n| api::NewThing {
            id: self.id.clone().unwrap_or_default(),
            owner: self.owner.clone().unwrap_or_default(),
            name: name(n),
            tags: self.tags.clone(),
            metadata: self.metadata.clone().unwrap_or_default(),
            key: self.key.clone().unwrap_or_default(),
            ..api::NewThing::default()
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
    created: &[api::Thing],
    channels: &[String],
    offset: usize,
) -> anyhow::Result<()> {
    for (place, channel) in channels.iter().enumerate() {
        let members = (offset..)
            .zip(created)
            .filter(|(n, _)| n % channels.len() == place);
        let things: Vec<String> = members.map(|(_, created)| created.id.clone()).collect();
        if things.is_empty() {
            continue;
        }
        let request = api::ConnectRequest {
            subjects: things,
            objects: vec![channel.clone()],
            ..api::ConnectRequest::default()
        };
        client.thing_policies().connect(request).await?;
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
