//! What things, and users, may do on channels: `rollcall connect`, `disconnect` and `policies things`.

use clap::{Args, Subcommand};
use rollcall_domain::identity::Timestamp;
use rollcall_grpc::client::Client;
use rollcall_grpc::things_api as api;
use serde_json::{Value, json};

use super::output::Output;
use super::page::Page;

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
        add(
            client,
            output,
            self.thing,
            self.channel,
            self.actions,
            false,
        )
        .await
    }
}

async fn add(
    client: &Client,
    output: Output,
    subject: String,
    channel: String,
    actions: Vec<String>,
    external: bool,
) -> anyhow::Result<()> {
    let text = format!("{subject} may {} on {channel}", actions.join(" and "));
    let value = match external {
        false => json!({ "thing_id": subject, "channel_id": channel, "actions": actions }),
        true => json!({ "user_id": subject, "channel_id": channel, "actions": actions }),
    };
    let request = api::ConnectRequest {
        subjects: vec![subject],
        objects: vec![channel],
        actions,
        external,
        missing: false,
    };
    client.thing_policies().connect(request).await?;
    Ok(output.say(&value, &text)?)
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
        remove(client, output, self.thing, self.channel, false).await
    }
}

async fn remove(
    client: &Client,
    output: Output,
    subject: String,
    channel: String,
    external: bool,
) -> anyhow::Result<()> {
    let text = format!("{subject} may do nothing on {channel}");
    let value = match external {
        false => json!({ "thing_id": subject, "channel_id": channel }),
        true => json!({ "user_id": subject, "channel_id": channel }),
    };
    let request = api::DisconnectRequest {
        subjects: vec![subject],
        objects: vec![channel],
        external,
    };
    client.thing_policies().disconnect(request).await?;
    Ok(output.say(&value, &text)?)
}

/// What things, and users, may do on channels.
#[derive(Subcommand)]
pub(super) enum ThingPolicies {
    /// Let a thing, or with --external a user, do something on a channel
    Add(Change),
    /// Change what it may do there
    Update(Change),
    /// Let it do nothing there
    Delete {
        subject: String,
        channel: String,
        /// The subject is a user
        #[arg(long)]
        external: bool,
    },
    /// List policies in the order they were made
    List(ListPolicies),
}

#[derive(Args)]
pub(super) struct Change {
    /// Id of the thing, or of the user
    subject: String,
    /// Id of the channel
    channel: String,
    /// m_read, m_write, c_list, c_update, c_delete, c_share, g_list, g_add, g_update, g_delete
    #[arg(long, value_delimiter = ',', required = true)]
    actions: Vec<String>,
    /// The subject is a user
    #[arg(long)]
    external: bool,
}

#[derive(Args)]
pub(super) struct ListPolicies {
    #[command(flatten)]
    page: Page,
    /// Id of who made them
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Id of a thing, or with --external of a user
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    #[arg(long)]
    external: bool,
    #[arg(long)]
    channel: Option<String>,
    /// Those that allow this
    #[arg(long)]
    action: Option<String>,
}

impl ThingPolicies {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Add(it) => {
                let Change {
                    subject,
                    channel,
                    actions,
                    external,
                } = it;
                add(client, output, subject, channel, actions, external).await
            }
            Self::Update(it) => {
                let request = api::UpdatePolicyRequest {
                    subject: it.subject,
                    object: it.channel,
                    actions: it.actions,
                    external: it.external,
                };
                let policy = client.thing_policies().update_policy(request).await?;
                Ok(output.table(&policy_json(&policy), HEADINGS, &[row(&policy)])?)
            }
            Self::Delete {
                subject,
                channel,
                external,
            } => remove(client, output, subject, channel, external).await,
            Self::List(it) => {
                let request = api::ListPoliciesRequest {
                    page: it.page.message()?,
                    owner: it.owner,
                    subject: it.subject,
                    external: it.external,
                    object: it.channel,
                    action: it.action,
                };
                let listing = client.thing_policies().list_policies(request).await?;
                let policies: Vec<Value> = listing.policies.iter().map(policy_json).collect();
                let value = json!({ "total": listing.total, "policies": policies });
                let rows: Vec<_> = listing.policies.iter().map(row).collect();
                Ok(output.table(&value, HEADINGS, &rows)?)
            }
        }
    }
}

const HEADINGS: [&str; 5] = ["SUBJECT", "KIND", "CHANNEL", "ACTIONS", "OWNER"];

fn row(policy: &api::Policy) -> [String; 5] {
    let kind = if policy.external { "user" } else { "thing" };
    [
        policy.subject.clone(),
        kind.to_owned(),
        policy.object.clone(),
        policy.actions.join(","),
        policy.owner.clone(),
    ]
}

fn policy_json(policy: &api::Policy) -> Value {
    json!({
        "subject": policy.subject,
        "object": policy.object,
        "actions": policy.actions,
        "external": policy.external,
        "owner": policy.owner,
        "created_at": Timestamp(policy.created_at).rfc3339(),
        "updated_at": policy.updated_at.map(|at| Timestamp(at).rfc3339()),
        "updated_by": policy.updated_by,
    })
}
