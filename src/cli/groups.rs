//! `rollcall groups`: groups of users. Channels, which are groups of things, are asked for and shown in the same way.

use std::collections::HashMap;

use clap::{Args, Subcommand};
use rollcall_domain::identity::Timestamp;
use rollcall_grpc::client::Client;
use rollcall_grpc::users_api as api;
use serde_json::{Value, json};

use super::output::Output;
use super::page::Page;
use super::users;

#[derive(Subcommand)]
pub(super) enum Groups {
    /// Make a group
    Create(CreateGroup),
    /// List groups in the order they were made
    List(List),
    /// Show a group and what is below it as a tree
    Tree {
        group: String,
        #[command(flatten)]
        near: Near,
    },
    /// Show a group
    Show { group: String },
    /// Give a group another name, description or metadata
    Update {
        group: String,
        #[command(flatten)]
        details: Details,
    },
    /// List a group and what is below it
    Children {
        group: String,
        #[command(flatten)]
        near: Near,
    },
    /// List a group and what is above it
    Parents {
        group: String,
        #[command(flatten)]
        near: Near,
    },
    /// List who is in a group
    Members {
        group: String,
        #[command(flatten)]
        page: Page,
    },
    /// List the groups that a user is in
    Of {
        user: String,
        #[command(flatten)]
        page: Page,
    },
    /// Make a user a member, who may do something on the group
    Assign {
        user: String,
        group: String,
        /// g_list, g_add, g_update, g_delete, c_list, c_update, c_delete, c_share, m_read, m_write
        #[arg(long, value_delimiter = ',', default_value = "g_list")]
        actions: Vec<String>,
    },
    /// Let a user no longer be a member
    Unassign { user: String, group: String },
    /// Shut a group: nobody has a right over others by it
    Disable { group: String },
    /// Open a group again
    Enable { group: String },
}

#[derive(Args)]
pub(super) struct CreateGroup {
    /// Name: each of an owner's groups has another
    name: String,
    #[arg(long, default_value = "")]
    description: String,
    /// A JSON object
    #[arg(long, value_name = "JSON", default_value = "")]
    metadata: String,
    /// The group above it
    #[arg(long, value_name = "GROUP", default_value = "")]
    parent: String,
    /// Whose it is [default: the caller's]
    #[arg(long, value_name = "USER", default_value = "")]
    owner: String,
}

#[derive(Args)]
pub(super) struct Details {
    #[arg(long)]
    name: Option<String>,
    #[arg(long)]
    description: Option<String>,
    /// A JSON object
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
}

impl Details {
    pub(super) fn request(self, id: String) -> api::UpdateGroupRequest {
        api::UpdateGroupRequest {
            id,
            name: self.name,
            description: self.description,
            metadata: self.metadata,
        }
    }
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    pub(super) page: Page,
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
    #[arg(long, value_name = "ID")]
    parent: Option<String>,
    /// A JSON object that the metadata has to contain
    #[arg(long, value_name = "JSON", default_value = "")]
    metadata: String,
    /// mine, shared or all
    #[arg(long, default_value = "all")]
    visibility: String,
}

impl List {
    pub(super) fn filter(self) -> api::GroupFilter {
        api::GroupFilter {
            status: self.status,
            name: self.name,
            owner: self.owner,
            parent: self.parent,
            metadata: self.metadata,
            visibility: self.visibility,
        }
    }
}

/// How much of what is above or below.
#[derive(Args)]
pub(super) struct Near {
    /// So many levels away at most
    #[arg(long)]
    levels: Option<u32>,
    #[command(flatten)]
    page: Page,
}

impl Near {
    pub(super) fn request(self, id: String) -> anyhow::Result<api::ListRelatedGroupsRequest> {
        Ok(api::ListRelatedGroupsRequest {
            id,
            levels: self.levels,
            page: self.page.message()?,
            filter: Some(everything()),
        })
    }
}

/// Groups of every status.
pub(super) fn everything() -> api::GroupFilter {
    api::GroupFilter {
        status: "all".to_owned(),
        ..api::GroupFilter::default()
    }
}

impl Groups {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let groups = client.groups();
        match self {
            Self::Create(create) => create.run(client, output).await,
            Self::List(list) => {
                let request = api::ListGroupsRequest {
                    page: list.page.message()?,
                    filter: Some(list.filter()),
                };
                show_listing(output, &groups.list_groups(request).await?)
            }
            Self::Tree { group, near } => {
                let listing = groups.list_group_children(near.request(group)?).await?;
                show_tree(output, &listing.groups)
            }
            Self::Show { group } => {
                let shown = groups.view_group(api::ViewGroupRequest { id: group });
                show(output, &shown.await?)
            }
            Self::Update { group, details } => {
                let changed = groups.update_group(details.request(group)).await?;
                show(output, &changed)
            }
            Self::Children { group, near } => {
                let listing = groups.list_group_children(near.request(group)?).await?;
                show_listing(output, &listing)
            }
            Self::Parents { group, near } => {
                let listing = groups.list_group_parents(near.request(group)?).await?;
                show_listing(output, &listing)
            }
            Self::Members { group, page } => {
                let request = api::ListMembersRequest {
                    group_id: group,
                    page: page.message()?,
                    status: "all".to_owned(),
                    ..api::ListMembersRequest::default()
                };
                let listing = groups.list_members(request).await?;
                let members: Vec<Value> = listing.members.iter().map(users::value).collect();
                let whole = json!({ "total": listing.total, "members": members });
                Ok(users::show(output, &whole, &listing.members)?)
            }
            Self::Of { user, page } => {
                let request = api::ListMembershipsRequest {
                    user_id: user,
                    page: page.message()?,
                    filter: Some(everything()),
                };
                show_listing(output, &groups.list_memberships(request).await?)
            }
            Self::Assign {
                user,
                group,
                actions,
            } => super::user_policies::add(client, output, user, group, actions).await,
            Self::Unassign { user, group } => {
                super::user_policies::delete(client, output, user, group).await
            }
            Self::Disable { group } => {
                let disable = api::DisableGroupRequest { id: group };
                say_status(output, &groups.disable_group(disable).await?)
            }
            Self::Enable { group } => {
                let enable = api::EnableGroupRequest { id: group };
                say_status(output, &groups.enable_group(enable).await?)
            }
        }
    }
}

impl CreateGroup {
    async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let request = api::CreateGroupRequest {
            name: self.name,
            description: self.description,
            metadata: self.metadata,
            parent: self.parent,
            owner: self.owner,
            status: String::new(),
        };
        let created = client.groups().create_group(request).await?;
        Ok(output.say(&value(&created), &created.id)?)
    }
}

fn show_listing(output: Output, listing: &api::ListGroupsResponse) -> anyhow::Result<()> {
    show_all(output, "groups", &listing.groups, listing.total)
}

/// A table; as JSON, the groups under the name of `what` they are.
pub(super) fn show_all(
    output: Output,
    what: &str,
    groups: &[api::Group],
    total: u64,
) -> anyhow::Result<()> {
    let values: Vec<Value> = groups.iter().map(value).collect();
    let whole = json!({ "total": total, what: values });
    Ok(output.table(&whole, HEADINGS, &rows(groups))?)
}

/// Each group below the one it is in, further to the right. What is not there, because it is on another page or is
/// not to be seen, is left out: what is below it begins a tree of its own.
fn show_tree(output: Output, groups: &[api::Group]) -> anyhow::Result<()> {
    let mut below: HashMap<&str, Vec<&api::Group>> = HashMap::new();
    let is_there = |id: &str| groups.iter().any(|group| group.id == id);
    for group in groups {
        let parent = group.parent.as_deref().filter(|parent| is_there(parent));
        below.entry(parent.unwrap_or("")).or_default().push(group);
    }
    if output.json {
        let trees = tree_json(&below, "");
        return Ok(output.line(&json!({ "groups": trees }).to_string())?);
    }
    let mut rows = Vec::new();
    draw(&below, "", "", &mut rows);
    Ok(output.table(&Value::Null, ["GROUP", "STATUS", "ID"], &rows)?)
}

fn tree_json(below: &HashMap<&str, Vec<&api::Group>>, parent: &str) -> Vec<Value> {
    let groups = below.get(parent).into_iter().flatten();
    let tree = |group: &&api::Group| {
        let mut tree = value(group);
        tree["children"] = json!(tree_json(below, &group.id));
        tree
    };
    groups.map(tree).collect()
}

fn draw(
    below: &HashMap<&str, Vec<&api::Group>>,
    parent: &str,
    margin: &str,
    rows: &mut Vec<[String; 3]>,
) {
    let groups = below.get(parent).map_or(&[][..], Vec::as_slice);
    for (place, group) in groups.iter().enumerate() {
        let is_last = place + 1 == groups.len();
        let (branch, next) = match (parent, is_last) {
            ("", _) => ("", ""),
            (_, true) => ("└─ ", "   "),
            (_, false) => ("├─ ", "│  "),
        };
        let name = format!("{margin}{branch}{}", group.name);
        rows.push([name, group.status.clone(), group.id.clone()]);
        draw(below, &group.id, &format!("{margin}{next}"), rows);
    }
}

const HEADINGS: [&str; 5] = ["ID", "STATUS", "CREATED", "NAME", "PARENT"];

fn rows(groups: &[api::Group]) -> Vec<[String; 5]> {
    let row = |it: &api::Group| {
        let created = Timestamp(it.created_at).rfc3339();
        let parent = it.parent.clone().unwrap_or_default();
        let (id, name) = (it.id.clone(), it.name.clone());
        [id, it.status.clone(), created, name, parent]
    };
    groups.iter().map(row).collect()
}

pub(super) fn show(output: Output, group: &api::Group) -> anyhow::Result<()> {
    let rows = rows(std::slice::from_ref(group));
    Ok(output.table(&value(group), HEADINGS, &rows)?)
}

pub(super) fn say_status(output: Output, changed: &api::Group) -> anyhow::Result<()> {
    let text = format!("{} is {}", changed.id, changed.status);
    Ok(output.say(&value(changed), &text)?)
}

pub(super) fn value(group: &api::Group) -> Value {
    json!({
        "id": group.id,
        "owner": group.owner,
        "parent": group.parent,
        "name": group.name,
        "description": group.description,
        "metadata": serde_json::from_str::<Value>(&group.metadata).unwrap_or_default(),
        "status": group.status,
        "created_at": Timestamp(group.created_at).rfc3339(),
        "updated_at": group.updated_at.map(|at| Timestamp(at).rfc3339()),
        "updated_by": group.updated_by,
        "path": group.path,
    })
}
