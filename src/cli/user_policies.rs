//! What users may do on groups: `rollcall policies users`.

use clap::{Args, Subcommand};
use rollcall_domain::identity::Timestamp;
use rollcall_grpc::client::Client;
use rollcall_grpc::users_api as api;
use serde_json::{Value, json};

use super::output::Output;
use super::page::Page;

/// What users may do on groups.
#[derive(Subcommand)]
pub(super) enum UserPolicies {
    /// Let a user do something on a group
    Add(Change),
    /// Change what a user may do there
    Update(Change),
    /// Let a user do nothing there
    Remove { user: String, group: String },
    /// List policies in the order they were made
    List(ListPolicies),
    /// Ask whether a user may do something; fails if not
    Authorize {
        /// Id of a user
        user: String,
        action: String,
        /// Id of a group or a user; `things` and `users` stand for all there are
        object: String,
        /// What the object is: group, or client for users
        #[arg(long, value_name = "KIND", default_value = "group")]
        entity_type: String,
    },
}

#[derive(Args)]
pub(super) struct Change {
    /// Id of the user
    user: String,
    /// Id of the group
    group: String,
    /// g_list, g_add, g_update, g_delete, c_list, c_update, c_delete, c_share, m_read, m_write
    #[arg(long, value_delimiter = ',', required = true)]
    actions: Vec<String>,
}

#[derive(Args)]
pub(super) struct ListPolicies {
    #[command(flatten)]
    page: Page,
    /// Id of who made them
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    #[arg(long)]
    user: Option<String>,
    #[arg(long)]
    group: Option<String>,
    /// Those that allow this
    #[arg(long)]
    action: Option<String>,
}

impl UserPolicies {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let policies = client.user_policies();
        match self {
            Self::Add(it) => add(client, output, it.user, it.group, it.actions).await,
            Self::Update(it) => {
                let request = api::UpdatePolicyRequest {
                    subject: it.user,
                    object: it.group,
                    actions: it.actions,
                };
                say(output, &policies.update_policy(request).await?)
            }
            Self::Remove { user, group } => delete(client, output, user, group).await,
            Self::List(it) => {
                let request = api::ListPoliciesRequest {
                    page: it.page.message()?,
                    owner: it.owner,
                    subject: it.user,
                    object: it.group,
                    action: it.action,
                };
                let listing = policies.list_policies(request).await?;
                let values: Vec<Value> = listing.policies.iter().map(policy_json).collect();
                let value = json!({ "total": listing.total, "policies": values });
                let rows: Vec<_> = listing.policies.iter().map(row).collect();
                let headings = ["USER", "GROUP", "ACTIONS", "OWNER"];
                Ok(output.table(&value, headings, &rows)?)
            }
            Self::Authorize {
                user,
                action,
                object,
                entity_type,
            } => {
                let text = format!("{user} may {action} on {object}");
                let request = api::AuthorizeRequest {
                    subject: user,
                    object,
                    action,
                    entity_type,
                };
                policies.authorize(request).await?;
                Ok(output.say(&json!({ "authorized": true }), &text)?)
            }
        }
    }
}

pub(super) async fn add(
    client: &Client,
    output: Output,
    user: String,
    group: String,
    actions: Vec<String>,
) -> anyhow::Result<()> {
    let request = api::AddPolicyRequest {
        subject: user,
        object: group,
        actions,
    };
    say(output, &client.user_policies().add_policy(request).await?)
}

pub(super) async fn delete(
    client: &Client,
    output: Output,
    user: String,
    group: String,
) -> anyhow::Result<()> {
    let text = format!("{user} may do nothing on {group}");
    let value = json!({ "subject": user, "object": group });
    let request = api::DeletePolicyRequest {
        subject: user,
        object: group,
    };
    client.user_policies().delete_policy(request).await?;
    Ok(output.say(&value, &text)?)
}

fn say(output: Output, policy: &api::Policy) -> anyhow::Result<()> {
    let may = policy.actions.join(", ");
    let text = format!("{} may {may} on {}", policy.subject, policy.object);
    Ok(output.say(&policy_json(policy), &text)?)
}

fn row(policy: &api::Policy) -> [String; 4] {
    [
        policy.subject.clone(),
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
        "owner": policy.owner,
        "created_at": Timestamp(policy.created_at).rfc3339(),
        "updated_at": policy.updated_at.map(|at| Timestamp(at).rfc3339()),
        "updated_by": policy.updated_by,
    })
}
