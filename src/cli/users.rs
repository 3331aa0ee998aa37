//! `rollcall users`: those who own things, and who may do what.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use rollcall_domain::identity::Timestamp;
use rollcall_grpc::client::{Client, ClientError};
use rollcall_grpc::users_api as api;
use serde_json::{Value, json};

use super::output::Output;
use super::page::Page;

const NO_LINK: &str =
    "the link was used or is too old: have another one mailed with `rollcall users reset-password`";

#[derive(Subcommand)]
pub(super) enum Users {
    /// Make a user
    Create(Create),
    /// List users in the order they were made
    List(List),
    /// Show a user
    Show { user: String },
    /// Show who you are
    Profile,
    /// Give a user another name or metadata
    Update {
        user: String,
        #[arg(long)]
        name: Option<String>,
        /// A JSON object
        #[arg(long, value_name = "JSON")]
        metadata: Option<String>,
    },
    /// Give a user these tags, and no others
    Tags {
        user: String,
        #[arg(value_name = "TAG")]
        tags: Vec<String>,
    },
    /// Change what a user signs in with
    Identity { user: String, identity: String },
    /// Give a user another owner
    Owner { user: String, owner: String },
    /// Give yourself another password; all logins end. Asks for the old one and the new one, a line each
    Password,
    /// Shut a user out, at once
    Disable { user: String },
    /// Let a user in again
    Enable { user: String },
    /// Have a link mailed to choose a new password by
    ResetPassword {
        email: String,
        /// Where the page is that takes the token
        #[arg(long, value_name = "URL", default_value = "http://localhost")]
        host: String,
    },
    /// Choose a password with the token of a mailed link. Asks for both, a line each; all logins end
    ChoosePassword,
}

#[derive(Args)]
pub(super) struct Create {
    /// What the user signs in with, an e-mail address as a rule
    identity: String,
    /// The file with the password [default: it is asked for]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[arg(long, default_value = "")]
    name: String,
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// A JSON object
    #[arg(long, value_name = "JSON", default_value = "")]
    metadata: String,
    /// Id of a user [default: the caller]
    #[arg(long, value_name = "USER", default_value = "")]
    owner: String,
    /// Make it an administrator
    #[arg(long)]
    admin: bool,
    /// Do not let it in yet
    #[arg(long)]
    disabled: bool,
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    page: Page,
    /// enabled, disabled or all
    #[arg(long, default_value = "all")]
    status: String,
    /// The whole name
    #[arg(long)]
    name: Option<String>,
    #[arg(long)]
    identity: Option<String>,
    #[arg(long)]
    tag: Option<String>,
    /// Id of a user
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// A JSON object that the metadata has to contain
    #[arg(long, value_name = "JSON", default_value = "")]
    metadata: String,
    /// mine, shared or all
    #[arg(long, default_value = "all")]
    visibility: String,
}

impl Users {
    /// Whether it takes no token, and is done in the name of whoever has one.
    pub(super) const fn is_for_anybody(&self) -> bool {
        matches!(
            self,
            Self::Create(_) | Self::ResetPassword { .. } | Self::ChoosePassword
        )
    }

    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let users = client.users();
        let user = match self {
            Self::Create(create) => users.create_user(create.request()?).await?,
            Self::List(list) => return list.run(client, output).await,
            Self::Show { user: id } => users.view_user(api::ViewUserRequest { id }).await?,
            Self::Profile => users.view_profile(api::ViewProfileRequest {}).await?,
            Self::Update {
                user: id,
                name,
                metadata,
            } => {
                let request = api::UpdateUserRequest { id, name, metadata };
                users.update_user(request).await?
            }
            Self::Tags { user: id, tags } => {
                let request = api::UpdateUserTagsRequest { id, tags };
                users.update_user_tags(request).await?
            }
            Self::Identity { user: id, identity } => {
                let request = api::UpdateUserIdentityRequest { id, identity };
                users.update_user_identity(request).await?
            }
            Self::Owner { user: id, owner } => {
                let request = api::UpdateUserOwnerRequest { id, owner };
                users.update_user_owner(request).await?
            }
            Self::Password => {
                let old_secret = ask("old password")?;
                let new_secret = ask("new password")?;
                let request = api::UpdateSecretRequest {
                    old_secret,
                    new_secret,
                };
                users.update_secret(request).await?
            }
            Self::Disable { user: id } => {
                users.disable_user(api::DisableUserRequest { id }).await?
            }
            Self::Enable { user: id } => users.enable_user(api::EnableUserRequest { id }).await?,
            Self::ResetPassword { email, host } => {
                let request = api::RequestResetRequest { email, host };
                client.passwords().request_reset(request).await?;
                let text = "if there is such a user, a mail with a link is on its way";
                return Ok(output.say(&json!({ "msg": text }), text)?);
            }
            Self::ChoosePassword => {
                let token = ask("token")?;
                let password = ask("new password")?;
                let request = api::ResetRequest {
                    token,
                    confirm_password: password.clone(),
                    password,
                };
                let reset = client.passwords().reset(request).await;
                reset.map_err(|error| match error {
                    ClientError::Token => anyhow!(NO_LINK),
                    other => other.into(),
                })?;
                let text = "that is the password now";
                return Ok(output.say(&json!({ "msg": text }), text)?);
            }
        };
        Ok(show(output, &value(&user), &[user])?)
    }
}

impl Create {
    fn request(self) -> anyhow::Result<api::CreateUserRequest> {
        let secret = match &self.password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("cannot read {}", path.display()))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            None => ask("password")?,
        };
        Ok(api::CreateUserRequest {
            name: self.name,
            tags: self.tags,
            owner: self.owner,
            identity: self.identity,
            secret,
            metadata: self.metadata,
            status: if self.disabled { "disabled" } else { "" }.to_owned(),
            role: if self.admin { "admin" } else { "" }.to_owned(),
        })
    }
}

impl List {
    async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let request = api::ListUsersRequest {
            page: self.page.message()?,
            status: self.status,
            name: self.name,
            identity: self.identity,
            tag: self.tag,
            owner: self.owner,
            metadata: self.metadata,
            visibility: self.visibility,
        };
        let listing = client.users().list_users(request).await?;
        let values: Vec<Value> = listing.users.iter().map(value).collect();
        let whole = json!({ "total": listing.total, "users": values });
        Ok(show(output, &whole, &listing.users)?)
    }
}

/// A password: a line of the input; a person is asked, and does not see it.
fn ask(what: &str) -> anyhow::Result<String> {
    let input = std::io::stdin();
    if input.is_terminal() {
        return Ok(rpassword::prompt_password(format!("{what}: "))?);
    }
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    read.with_context(|| format!("cannot read the {what}"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// As a table, or `value` as JSON.
pub(super) fn show(output: Output, value: &Value, users: &[api::User]) -> std::io::Result<()> {
    let rows: Vec<_> = users
        .iter()
        .map(|user| {
            [
                user.id.clone(),
                user.status.clone(),
                user.role.clone(),
                Timestamp(user.created_at).rfc3339(),
                user.identity.clone(),
                user.name.clone(),
                user.tags.join(","),
            ]
        })
        .collect();
    let headings = [
        "ID", "STATUS", "ROLE", "CREATED", "IDENTITY", "NAME", "TAGS",
    ];
    output.table(value, headings, &rows)
}

pub(super) fn value(user: &api::User) -> Value {
    let metadata: Value = serde_json::from_str(&user.metadata).unwrap_or_default();
    json!({
        "id": user.id,
        "name": user.name,
        "tags": user.tags,
        "owner": user.owner,
        "identity": user.identity,
        "metadata": metadata,
        "status": user.status,
        "role": user.role,
        "created_at": Timestamp(user.created_at).rfc3339(),
        "updated_at": user.updated_at.map(|at| Timestamp(at).rfc3339()),
        "updated_by": user.updated_by,
    })
}
