//! Users in the database.

use async_trait::async_trait;
use rollcall_domain::entity::{Status, Update};
use rollcall_domain::event::Event;
use rollcall_domain::groups::{People, Person, Tell};
use rollcall_domain::identity::{GroupId, UserId};
use rollcall_domain::listing::{Listing, Page, Visibility};
use rollcall_domain::policies::Action;
use rollcall_domain::ports::StoreError;
use rollcall_domain::users::{Change, Scope, User, UserFilter, UserStore};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::database::{Database, failed, taken};
use crate::lists::{self, By, Entity, Part};
use crate::metadata::Kind;
use crate::rows::{
    flag, from_json, id, is_set, json, moment, optional_id, optional_moment, status,
};
use crate::statement::{Statement, Value};

/// As [`user`] reads them.
pub(crate) const COLUMNS: &str =
    "users.id, users.name, users.tags, users.owner, users.identity, users.metadata,
     users.enabled, users.admin, users.created_at, users.updated_at, users.updated_by";

#[async_trait]
impl UserStore for Database {
    async fn add_user(
        &self,
        user: &User,
        password: &str,
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        let failed = failed("keep a user");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        sqlx::query(
            "INSERT INTO users (id, name, tags, owner, identity, metadata, enabled, admin, created_at, password)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(user.id.as_bytes().as_slice())
        .bind(&user.name)
        .bind(json(&user.tags))
        .bind(user.owner.map(|owner| owner.as_bytes().to_vec()))
        .bind(&user.identity)
        .bind(json(&user.metadata))
        .bind(flag(user.status == Status::Enabled))
        .bind(flag(user.admin))
        .bind(user.created_at.0.cast_signed())
        .bind(password)
        .execute(&mut *transaction)
        .await
        .map_err(taken("keep a user", "identity"))?;
        lists::add(&mut transaction, self.span, &[user.into()])
            .await
            .map_err(&failed)?;
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let failed = failed("read a user");
        let mut read = select();
        read.push(" WHERE id = ").bind(id.as_bytes());
        let row = read.query().fetch_optional(&self.readers).await;
        let user = row.map_err(&failed)?.map(|row| user(&row));
        user.transpose().map_err(&failed)
    }

    async fn credentials(&self, identity: &str) -> Result<Option<(User, String)>, StoreError> {
        let failed = failed("read a user");
        let mut read = Statement::new(format!("SELECT {COLUMNS}, password FROM users"));
        read.push(" WHERE identity = ").bind(identity);
        let row = read.query().fetch_optional(&self.readers).await;
        row.map_err(&failed)?
            .map(|row| Ok((user(&row)?, row.try_get(11)?)))
            .transpose()
            .map_err(&failed)
    }

    async fn password(&self, id: UserId) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT password FROM users WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read a password"))
    }

    async fn change_user(
        &self,
        id: UserId,
        change: &Change,
        update: Update,
        tell: &Tell<User>,
    ) -> Result<Option<User>, StoreError> {
        let failed = failed("change a user");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        // Written, so that nobody else changes it meanwhile.
        let mut before = Statement::new("UPDATE users SET enabled = enabled WHERE id = ");
        before.bind(id.as_bytes()).push(" RETURNING ").push(COLUMNS);
        let before = before.query().fetch_optional(&mut *transaction).await;
        let before = before.map_err(&failed)?;
        let row = changing(id, change, update)
            .query()
            .fetch_optional(&mut *transaction)
            .await;
        let row = row.map_err(taken("change a user", "identity"))?;
        let (Some(before), Some(row)) = (before, row) else {
            return Ok(None);
        };
        let before = self::user(&before).map_err(&failed)?;
        let user = self::user(&row).map_err(&failed)?;
        let (old, new) = (Entity::from(&before), Entity::from(&user));
        lists::alter(&mut transaction, self.span, &old, &new)
            .await
            .map_err(&failed)?;
        match change {
            Change::Status(Status::Disabled) | Change::Password { .. } => {
                sign_out(&mut transaction, id).await.map_err(&failed)?;
            }
            Change::Identity(_) => drop_resets(&mut transaction, id).await.map_err(&failed)?,
            Change::Details { .. }
            | Change::Tags(_)
            | Change::Owner(_)
            | Change::Status(Status::Enabled) => {}
        }
        let events = vec![tell(&user)];
        self.commit(transaction, events).await.map_err(&failed)?;
        Ok(Some(user))
    }

    async fn users(
        &self,
        scope: Scope,
        filter: &UserFilter,
        page: Page,
    ) -> Result<Listing<User>, StoreError> {
        self.list_users(parts(scope, filter), page).await
    }

    async fn admin(&self) -> Result<Option<User>, StoreError> {
        let failed = failed("read a user");
        let mut read = select();
        read.push(" WHERE admin = 1 ORDER BY created_at, id LIMIT 1");
        let row = read.query().fetch_optional(&self.readers).await;
        let user = row.map_err(&failed)?.map(|row| user(&row));
        user.transpose().map_err(&failed)
    }

    async fn record(&self, events: Vec<Event>) {
        self.announce(events).await;
    }
}

#[async_trait]
impl People for Database {
    async fn person(&self, id: UserId) -> Result<Option<Person>, StoreError> {
        let failed = failed("read a user");
        let row = sqlx::query("SELECT owner, admin FROM users WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&self.readers)
            .await
            .map_err(&failed)?;
        let person = |row: AnyRow| {
            Ok(Person {
                owner: optional_id(&row, 0)?.map(UserId::from_bytes),
                admin: is_set(&row, 1)?,
            })
        };
        row.map(person).transpose().map_err(&failed)
    }

    async fn members(
        &self,
        group: GroupId,
        vouched: bool,
        filter: &UserFilter,
        page: Page,
    ) -> Result<Listing<User>, StoreError> {
        let of = group.as_bytes();
        let mut members = Vec::new();
        for part in filtered(filter) {
            if !vouched {
                let vouched = false;
                members.push(part.clone().by(By::Membership { of, vouched }));
            }
            let vouched = true;
            members.push(part.by(By::Membership { of, vouched }));
        }
        self.list_users(members, page).await
    }
}

impl Database {
    async fn list_users(&self, parts: Vec<Part>, page: Page) -> Result<Listing<User>, StoreError> {
        let failed = failed("list users");
        let rows = lists::page(self, COLUMNS, parts, page).await;
        let Listing { items, total } = rows.map_err(&failed)?;
        let items = items.iter().map(user).collect::<Result<_, _>>();
        Ok(Listing {
            items: items.map_err(&failed)?,
            total,
        })
    }
}

fn select() -> Statement {
    Statement::new(format!("SELECT {COLUMNS} FROM users"))
}

fn changing(id: UserId, change: &Change, update: Update) -> Statement {
    let mut changing = Statement::new("UPDATE users SET updated_at = ");
    changing.bind(update.at.0.cast_signed());
    changing.push(", updated_by = ").bind(update.by.as_bytes());
    let mut condition: Option<(&str, Value)> = None;
    match change {
        Change::Details { name, metadata } => {
            if let Some(name) = name {
                changing.push(", name = ").bind(name.as_str());
            }
            if let Some(metadata) = metadata {
                changing.push(", metadata = ").bind(json(metadata).as_str());
            }
        }
        Change::Tags(tags) => {
            changing.push(", tags = ").bind(json(tags).as_str());
        }
        Change::Identity(identity) => {
            changing.push(", identity = ").bind(identity.as_str());
        }
        Change::Owner(owner) => {
            changing.push(", owner = ").bind(owner.as_bytes());
        }
        Change::Status(status) => {
            let enabled = flag(*status == Status::Enabled);
            changing.push(", enabled = ").bind(enabled);
            condition = Some((" AND enabled <> ", enabled.into()));
        }
        Change::Password { hash, instead_of } => {
            changing.push(", password = ").bind(hash.as_str());
            condition = Some((" AND password = ", instead_of.as_str().into()));
        }
    }
    changing.push(" WHERE id = ").bind(id.as_bytes());
    if let Some((condition, value)) = condition {
        changing.push(condition).bind(value);
    }
    changing.push(" RETURNING ").push(COLUMNS);
    changing
}

/// What the filter lets through, a part for each status.
fn filtered(filter: &UserFilter) -> Vec<Part> {
    let part = |status: &Status| {
        let mut part = Part::new(Kind::User, *status);
        if let Some(name) = &filter.name {
            part = part.by(By::Name(name));
        }
        if let Some(identity) = &filter.identity {
            let mut one = Statement::new("SELECT id FROM users WHERE identity = ");
            one.bind(identity.as_str());
            part = part.among(one);
        }
        if let Some(tag) = &filter.tag {
            part = part.by(By::Tag(tag));
        }
        if let Some(owner) = &filter.owner {
            part = part.by(By::Owner(owner.as_bytes()));
        }
        match &filter.metadata {
            Some(wanted) => part.containing(wanted),
            None => part,
        }
    };
    let statuses = lists::statuses(filter.status).iter();
    statuses.map(part).collect()
}

fn parts(scope: Scope, filter: &UserFilter) -> Vec<Part> {
    let mut parts = Vec::new();
    for part in filtered(filter) {
        match scope {
            Scope::Everybody => parts.push(part),
            Scope::Of(user, Visibility::Mine) => parts.push(part.by(By::Owner(user.as_bytes()))),
            Scope::Of(user, Visibility::Shared) => parts.push(part.among(shared_with(user))),
            Scope::Of(user, Visibility::All) => {
                let owner = By::Owner(user.as_bytes());
                parts.push(part.clone().by(owner));
                parts.push(part.not_by(owner).among(shared_with(user)));
            }
        }
    }
    parts
}

/// Who is, vouched for, in an enabled group where this user may list members.
fn shared_with(user: UserId) -> Statement {
    let mut which = Statement::new(
        "SELECT theirs.subject FROM user_policies AS own
         JOIN groups ON groups.id = own.object
         JOIN user_policies AS theirs ON theirs.object = own.object
         WHERE groups.enabled = 1 AND theirs.vouched = 1 AND own.subject = ",
    );
    which.bind(user.as_bytes());
    let list = Action::ClientList.allowed_by().bits();
    which
        .push(" AND (own.actions & ")
        .bind(i64::from(list))
        .push(") <> 0");
    which
}

/// Ends all logins and resets of a user.
pub(crate) async fn sign_out(
    connection: &mut AnyConnection,
    user: UserId,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM logins WHERE user_id = $1")
        .bind(user.as_bytes().as_slice())
        .execute(&mut *connection)
        .await?;
    drop_resets(connection, user).await
}

async fn drop_resets(connection: &mut AnyConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM resets WHERE user_id = $1")
        .bind(user.as_bytes().as_slice())
        .execute(connection)
        .await
        .map(|_| ())
}

/// Of [`COLUMNS`], which come first.
pub(crate) fn user(row: &AnyRow) -> Result<User, sqlx::Error> {
    let updated_at = optional_moment(row, 9)?;
    let updated_by = optional_id(row, 10)?.map(UserId::from_bytes);
    Ok(User {
        id: UserId::from_bytes(id(row, 0)?),
        name: row.try_get(1)?,
        tags: from_json(row, 2)?,
        owner: optional_id(row, 3)?.map(UserId::from_bytes),
        identity: row.try_get(4)?,
        metadata: from_json(row, 5)?,
        status: status(row, 6)?,
        admin: is_set(row, 7)?,
        created_at: moment(row, 8)?,
        update: updated_at.zip(updated_by).map(|(at, by)| Update { at, by }),
    })
}
