//! The users service of this process.

use std::sync::Arc;

use anyhow::Context;
use rollcall_domain::groups::Groups;
use rollcall_domain::identity::{Secret, UserId};
use rollcall_domain::users::{Tokens, Users};
use rollcall_mail::{Doorbell, Postman};
use rollcall_storage::database::Database;

use crate::config::Config;
use crate::hashing::Hashers;
use crate::secrets::{self, Secrets};

pub(super) struct UsersService {
    pub(super) users: Arc<Users>,
    pub(super) groups: Arc<Groups>,
    pub(super) postman: Postman,
    pub(super) admin: UserId,
    /// If it was generated now.
    pub(super) first_password: Option<Secret>,
}

impl UsersService {
    pub(super) async fn open(
        config: &Config,
        secrets: &Secrets,
        database: &Database,
    ) -> anyhow::Result<Self> {
        let key = match config.users.token_key_file.as_os_str().is_empty() {
            true => secrets.token_key()?,
            false => secrets::key_from(&config.users.token_key_file).context(
                "users.token_key_file: the path of a file with 32 bytes of text or more",
            )?,
        };
        let mailer = rollcall_mail::open(&config.mail, &config.data.join("mails"))?;
        let bell = Doorbell::default();
        let store = Arc::new(database.clone());
        let users = Arc::new(Users::new(
            store.clone(),
            store.clone(),
            Arc::new(Hashers::new(config.users.hashers, config.users.max_hashing)),
            Tokens::new(key.expose().as_bytes()),
            Arc::new(bell.clone()),
            config.users.settings(config.mail.give_up_after),
        ));
        let groups = Arc::new(Groups::new(store.clone(), store.clone(), store));
        let given = config.admin.password().with_context(|| {
            let file = config.admin.password_file.display();
            format!("cannot read admin.password_file {file}")
        })?;
        let password = given.clone().unwrap_or_else(Secret::generate);
        let (admin, first) = users
            .ensure_admin(&config.admin.identity, &password)
            .await
            .context("cannot make the administrator (admin.identity, admin.password)")?;
        Ok(Self {
            postman: Postman::new(Arc::clone(&users), mailer, bell),
            users,
            groups,
            admin,
            first_password: Some(password).filter(|_| first && given.is_none()),
        })
    }
}
