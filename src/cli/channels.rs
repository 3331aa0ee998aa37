//! `rollcall channels`.

use anyhow::Context;
use clap::{Args, Subcommand};
use rollcall_domain::identity::ChannelId;
use rollcall_grpc::client::Client;
use rollcall_grpc::things_api as api;

use super::groups::{self, Details, List, Near};
use super::output::Output;
use super::page::Page;
use super::things;

#[derive(Subcommand)]
pub(super) enum Channels {
    /// Make a channel
    Create(CreateChannel),
    /// List channels in the order they were made
    List(List),
    /// Show a channel
    Show { channel: String },
    /// Give a channel another name, description or metadata
    Update {
        channel: String,
        #[command(flatten)]
        details: Details,
    },
    /// List the things that are connected to a channel
    Things {
        channel: String,
        #[command(flatten)]
        page: Page,
    },
    /// List a channel and what is above it
    Parents {
        channel: String,
        #[command(flatten)]
        near: Near,
    },
    /// List a channel and what is below it
    Children {
        channel: String,
        #[command(flatten)]
        near: Near,
    },
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

impl Channels {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let channels = client.channels();
        match self {
            Self::Create(create) => create.run(client, output).await,
            Self::List(list) => {
                let request = api::ListChannelsRequest {
                    page: list.page.message()?,
                    filter: Some(list.filter()),
                };
                show_listing(output, &channels.list_channels(request).await?)
            }
            Self::Show { channel } => {
                let shown = channels.view_channel(api::ViewChannelRequest { id: channel });
                groups::show(output, &shown.await?)
            }
            Self::Update { channel, details } => {
                let changed = channels.update_channel(details.request(channel)).await?;
                groups::show(output, &changed)
            }
            Self::Things { channel, page } => {
                let filter = api::ThingFilter {
                    status: "all".to_owned(),
                    ..api::ThingFilter::default()
                };
                let request = api::ListThingsByChannelRequest {
                    channel_id: channel,
                    page: page.message()?,
                    filter: Some(filter),
                };
                let listing = client.things().list_things_by_channel(request).await?;
                things::show_all(output, &listing.things, Some(listing.total))
            }
            Self::Parents { channel, near } => {
                let related = near.request(channel)?;
                let listing = channels.list_channel_parents(related).await?;
                show_listing(output, &listing)
            }
            Self::Children { channel, near } => {
                let related = near.request(channel)?;
                let listing = channels.list_channel_children(related).await?;
                show_listing(output, &listing)
            }
            Self::Disable { channel } => {
                let disable = api::DisableChannelRequest { id: channel };
                groups::say_status(output, &channels.disable_channel(disable).await?)
            }
            Self::Enable { channel } => {
                let enable = api::EnableChannelRequest { id: channel };
                groups::say_status(output, &channels.enable_channel(enable).await?)
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
        Ok(output.say(&groups::value(created), &created.id)?)
    }
}

pub(super) fn show_listing(
    output: Output,
    listing: &api::ListChannelsResponse,
) -> anyhow::Result<()> {
    groups::show_all(output, "channels", &listing.channels, listing.total)
}
