//! `rollcall channels`.

use anyhow::Context;
use clap::{Args, Subcommand};
use rollcall_domain::identity::{ChannelId, Timestamp};
use rollcall_grpc::client::Client;
use rollcall_grpc::things_api as api;
use serde_json::{Value, json};

use super::output::Output;
use super::things::{self, Page};

#[derive(Subcommand)]
pub(super) enum Channels {
    /// Make a channel
    Create(CreateChannel),
    /// List channels in the order they were made
    List(ListChannels),
    /// Show a channel
    Show { channel: String },
    /// Give a channel another name, description or metadata
    Update {
        channel: String,
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        description: Option<String>,
        /// A JSON object
        #[arg(long, value_name = "JSON")]
        metadata: Option<String>,
    },
    /// List the things that are connected to a channel
    Things {
        channel: String,
        #[command(flatten)]
        page: Page,
    },
    /// List a channel and what is above it
    Parents(Related),
    /// List a channel and what is below it
    Children(Related),
    /// Close a channel: nobody may do anything there, and subscriptions end
    Disable { channel: String },
    /// Open a channel again
    Enable { channel: String },
}

#[derive(Args)]
pub(super) struct CreateChannel {
    /// Name: each of an owner's channels has another [default: a generated one]
    name: Option<String>,
    /// The id [default: a generated one]
    #[arg(long)]
    id: Option<String>,
    #[arg(long, default_value = "")]
    description: String,
    /// A JSON object
    #[arg(long, value_name = "JSON", default_value = "")]
    metadata: String,
    /// The channel above it
    #[arg(long, value_name = "CHANNEL", default_value = "")]
    parent: String,
    /// Whose it is [default: the caller's]
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
}

#[derive(Args)]
pub(super) struct ListChannels {
    #[command(flatten)]
    page: Page,
    /// enabled, disabled or all
    #[arg(long, default_value = "all")]
    status: String,
    /// The whole name
    #[arg(long)]
    name: Option<String>,
    /// Id of a user
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Those directly below this one
    #[arg(long, value_name = "CHANNEL")]
    parent: Option<String>,
    /// A JSON object that the metadata has to contain
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// mine, shared or all
    #[arg(long, default_value = "all")]
    visibility: String,
}

#[derive(Args)]
pub(super) struct Related {
    channel: String,
    /// So many levels away at most
    #[arg(long)]
    levels: Option<u32>,
    #[command(flatten)]
    page: Page,
}

impl Related {
    fn request(self) -> anyhow::Result<api::ListRelatedChannelsRequest> {
        Ok(api::ListRelatedChannelsRequest {
            id: self.channel,
            levels: self.levels,
            page: self.page.of_things()?,
            filter: Some(everything()),
        })
    }
}

/// Channels of every status.
pub(super) fn everything() -> api::ChannelFilter {
    api::ChannelFilter {
        status: "all".to_owned(),
        ..api::ChannelFilter::default()
    }
}

impl Channels {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let channels = client.channels();
        match self {
            Self::Create(create) => create.run(client, output).await,
            Self::List(list) => list.run(client, output).await,
            Self::Show { channel } => {
                let shown = channels.view_channel(api::ViewChannelRequest { id: channel });
                show(output, &shown.await?)
            }
            Self::Update {
                channel,
                name,
                description,
                metadata,
            } => {
                let request = api::UpdateChannelRequest {
                    id: channel,
                    name,
                    description,
                    metadata,
                };
                show(output, &channels.update_channel(request).await?)
            }
            Self::Things { channel, page } => {
                let filter = api::ThingFilter {
                    status: "all".to_owned(),
                    ..api::ThingFilter::default()
                };
                let request = api::ListThingsByChannelRequest {
                    channel_id: channel,
                    page: page.of_things()?,
                    filter: Some(filter),
                };
                let listing = client.things().list_things_by_channel(request).await?;
                things::show_all(output, &listing.things, Some(listing.total))
            }
            Self::Parents(related) => {
                let listing = channels.list_channel_parents(related.request()?).await?;
                show_listing(output, &listing)
            }
            Self::Children(related) => {
                let listing = channels.list_channel_children(related.request()?).await?;
                show_listing(output, &listing)
            }
            Self::Disable { channel } => {
                let disable = api::DisableChannelRequest { id: channel };
                say_status(output, &channels.disable_channel(disable).await?)
            }
            Self::Enable { channel } => {
                let enable = api::EnableChannelRequest { id: channel };
                say_status(output, &channels.enable_channel(enable).await?)
            }
        }
    }
}

impl CreateChannel {
    async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let generated = || format!("channel {}", &ChannelId::generate().to_string()[..8]);
        let new = api::NewChannel {
            id: self.id.unwrap_or_default(),
            owner: self.owner.unwrap_or_default(),
            parent: self.parent,
            name: self.name.unwrap_or_else(generated),
            description: self.description,
            metadata: self.metadata,
            status: String::new(),
        };
        let request = api::CreateChannelsRequest {
            channels: vec![new],
        };
        let created = client.channels().create_channels(request).await?;
        let created = created.channels.first();
        let created = created.context("the server made no channel")?;
        Ok(output.say(&channel_json(created), &created.id)?)
    }
}

impl ListChannels {
    async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let filter = api::ChannelFilter {
            status: self.status,
            name: self.name,
            owner: self.owner,
            parent: self.parent,
            metadata: self.metadata.unwrap_or_default(),
            visibility: self.visibility,
        };
        let request = api::ListChannelsRequest {
            page: self.page.of_things()?,
            filter: Some(filter),
        };
        let listing = client.channels().list_channels(request).await?;
        show_listing(output, &listing)
    }
}

pub(super) fn show_listing(
    output: Output,
    listing: &api::ListChannelsResponse,
) -> anyhow::Result<()> {
    let channels: Vec<Value> = listing.channels.iter().map(channel_json).collect();
    let value = json!({ "total": listing.total, "channels": channels });
    Ok(output.table(&value, HEADINGS, &rows(&listing.channels))?)
}

const HEADINGS: [&str; 5] = ["ID", "STATUS", "CREATED", "NAME", "PARENT"];

fn rows(channels: &[api::Channel]) -> Vec<[String; 5]> {
    let row = |it: &api::Channel| {
        let created = Timestamp(it.created_at).rfc3339();
        let parent = it.parent.clone().unwrap_or_default();
        let (id, name) = (it.id.clone(), it.name.clone());
        [id, it.status.clone(), created, name, parent]
    };
    channels.iter().map(row).collect()
}

fn show(output: Output, channel: &api::Channel) -> anyhow::Result<()> {
    let rows = rows(std::slice::from_ref(channel));
    Ok(output.table(&channel_json(channel), HEADINGS, &rows)?)
}

fn say_status(output: Output, changed: &api::Channel) -> anyhow::Result<()> {
    let text = format!("{} is {}", changed.id, changed.status);
    Ok(output.say(&channel_json(changed), &text)?)
}

fn channel_json(channel: &api::Channel) -> Value {
    json!({
        "id": channel.id,
        "owner": channel.owner,
        "parent": channel.parent,
        "name": channel.name,
        "description": channel.description,
        "metadata": serde_json::from_str::<Value>(&channel.metadata).unwrap_or_default(),
        "status": channel.status,
        "created_at": Timestamp(channel.created_at).rfc3339(),
        "updated_at": channel.updated_at.map(|at| Timestamp(at).rfc3339()),
        "updated_by": channel.updated_by,
        "path": channel.path,
    })
}
