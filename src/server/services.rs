//! The services of this process, and what stands for those that are elsewhere.

use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use rollcall_domain::access::{Authority, Revocations};
use rollcall_domain::bootstrap::{Bootstrap, Guesses, Inventory, PrivateKeys};
use rollcall_domain::caller::{Caller, Identities, OwnersToken, Question};
use rollcall_domain::groups::Groups;
use rollcall_domain::identity::{Secret, UserId};
use rollcall_domain::refusal::Refusal;
use rollcall_domain::things::{Stores, Things};
use rollcall_domain::users::{Announced, Unannounced, Users};
use rollcall_domain::vault::KeyKeeper;
use rollcall_grpc::authority::RemoteAuthority;
use rollcall_grpc::identities::RemoteIdentities;
use rollcall_grpc::inventory::RemoteInventory;
use rollcall_mail::Postman;
use rollcall_storage::database::Database;

use super::Role;
use super::users::UsersService;
use crate::config::{Config, ShowKeys};
use crate::secrets::Secrets;

pub(super) struct Services {
    /// Who calls a service.
    pub(super) identities: Arc<dyn Identities>,
    /// Who calls what concerns this process alone.
    pub(super) admins: Arc<dyn Identities>,
    /// Who calls the users service itself.
    pub(super) users_callers: Arc<dyn Identities>,
    pub(super) users: Option<Arc<Users>>,
    pub(super) groups: Option<Arc<Groups>>,
    /// Sends the mails of the users service.
    pub(super) postman: Option<Postman>,
    pub(super) things: Option<Arc<Things>>,
    pub(super) bootstrap: Option<Arc<Bootstrap>>,
    pub(super) admin: Option<UserId>,
    /// The administrator's password, the one time it is known.
    pub(super) first_password: Option<Secret>,
}

impl Services {
    pub(super) async fn open(
        config: &Config,
        role: Role,
        secrets: &Secrets,
        database: &Database,
        revocations: Arc<dyn Revocations>,
    ) -> anyhow::Result<Self> {
        let token = secrets.admin_token()?;
        let (mut admin, mut first_password) = (None, None);
        let (mut users, mut groups, mut postman) = (None, None, None);
        let mut users_callers: Arc<dyn Identities> = Arc::new(NobodyElse);
        let mut identities: Arc<dyn Identities> = if role.has(Role::Users) {
            let service = UsersService::open(config, secrets, database).await?;
            admin = Some(service.admin);
            first_password = service.first_password;
            let announced = Announced::new(service.users.clone(), service.groups.clone());
            let announced = Arc::new(announced);
            let owners = |others: Arc<dyn Identities>| {
                OwnersToken::new(token.clone(), service.admin, others)
            };
            let unannounced = Arc::new(Unannounced(Arc::clone(&announced)));
            users_callers = Arc::new(owners(unannounced));
            users = Some(service.users);
            groups = Some(service.groups);
            postman = Some(service.postman);
            Arc::new(owners(announced))
        } else {
            Arc::new(NobodyElse)
        };
        if !config.users.authority.is_empty() {
            let (url, timeout) = (&config.users.authority, config.users.timeout);
            let remote = RemoteIdentities::new(url, timeout, &config.grpc.client);
            identities = Arc::new(remote.context("users.authority")?);
        }
        // Here it is only asked whether somebody is an administrator, not which one.
        let owner = admin.unwrap_or_else(UserId::generate);
        let admins = Arc::new(OwnersToken::new(token, owner, Arc::clone(&identities)));
        let things = match role.has(Role::Things) {
            true => {
                let users = Arc::clone(&identities);
                Some(things(config, secrets, database, users, revocations)?)
            }
            false => None,
        };
        let bootstrap = match role.has(Role::Bootstrap) {
            true => Some(bootstrap(config, secrets, database, things.clone())?),
            false => None,
        };
        Ok(Self {
            identities,
            admins,
            users_callers,
            users,
            groups,
            postman,
            things,
            bootstrap,
            admin,
            first_password,
        })
    }

    /// The things service that the front asks.
    pub(super) fn authority(&self, config: &Config) -> anyhow::Result<Arc<dyn Authority>> {
        match (&self.things, config.things.authority.as_str()) {
            (Some(things), "") => Ok(Arc::clone(things) as Arc<dyn Authority>),
            (_, url) => {
                let tls = &config.grpc.client;
                let remote = RemoteAuthority::new(url, config.things.timeout, tls);
                Ok(Arc::new(remote.context("things.authority")?))
            }
        }
    }
}

fn things(
    config: &Config,
    secrets: &Secrets,
    database: &Database,
    users: Arc<dyn Identities>,
    revocations: Arc<dyn Revocations>,
) -> anyhow::Result<Arc<Things>> {
    let vault = match config.things.show_keys {
        ShowKeys::Always => Some(secrets.vault()?),
        ShowKeys::Once => None,
    };
    let keys = KeyKeeper::new(secrets.key_hasher()?, vault);
    let stores = Stores::of(Arc::new(database.clone()));
    Ok(Arc::new(Things::new(stores, users, revocations, keys)))
}

/// The things service is here, unless another one is named or there is none.
fn bootstrap(
    config: &Config,
    secrets: &Secrets,
    database: &Database,
    things: Option<Arc<Things>>,
) -> anyhow::Result<Arc<Bootstrap>> {
    let inventory: Arc<dyn Inventory> = match (things, config.things.url.as_str()) {
        (Some(things), "") => things,
        (_, url) => {
            let tls = &config.grpc.client;
            let remote = RemoteInventory::new(url, config.things.timeout, tls);
            Arc::new(remote.context("things.url")?)
        }
    };
    let settings = &config.bootstrap;
    let private_keys = match config.events.private_keys {
        true => PrivateKeys::Plain,
        false => PrivateKeys::Fingerprint,
    };
    Ok(Arc::new(Bootstrap::new(
        Arc::new(database.clone()),
        inventory,
        secrets.key_hasher()?,
        secrets.vault()?,
        secrets
            .device_cipher(&settings.encrypt_key_file)
            .context("bootstrap.encrypt_key_file: the path of a file with 16, 24 or 32 bytes")?,
        Guesses::new(settings.failed_fetches, settings.failed_fetch_window),
        private_keys,
    )))
}

/// Of whom no token is known.
struct NobodyElse;

#[async_trait]
impl Identities for NobodyElse {
    async fn caller(&self, _: &Secret) -> Result<Caller, Refusal> {
        Err(Refusal::Unauthenticated)
    }

    async fn authorize(&self, _: Question<'_>) -> Result<(), Refusal> {
        Err(Refusal::Unauthenticated)
    }
}
