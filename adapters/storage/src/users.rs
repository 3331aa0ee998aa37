//! Users in the database.

use async_trait::async_trait;
use rollcall_domain::entity::{Status, Update};
use rollcall_domain::event::Event;
use rollcall_domain::groups::{People, Person, Tell};
use rollcall_domain::identity::{GroupId, UserId};
use rollcall_domain::listing::{Listing, Page, StatusFilter, Visibility};
use rollcall_domain::policies::Action;
use rollcall_domain::ports::StoreError;
use rollcall_domain::users::{Change, Scope, User, UserFilter, UserStore};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::database::{Database, failed, taken};
use crate::metadata::{self, Kind};
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
        tag(&mut transaction, user).await.map_err(&failed)?;
        metadata::add_terms(
            &mut transaction,
            Kind::User,
            user.id.as_bytes(),
            &user.metadata,
        )
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
        let row = changing(id, change, update)
            .query()
            .fetch_optional(&mut *transaction)
            .await;
        let Some(row) = row.map_err(taken("change a user", "identity"))? else {
            return Ok(None);
        };
        let user = user(&row).map_err(&failed)?;
        let also = match change {
            Change::Details {
                metadata: Some(metadata),
                ..
            } => metadata::put_terms(&mut transaction, Kind::User, id.as_bytes(), metadata).await,
            Change::Tags(_) => tag(&mut transaction, &user).await,
            Change::Status(Status::Disabled) | Change::Password { .. } => {
                sign_out(&mut transaction, id).await
            }
            Change::Details { .. }
            | Change::Identity(_)
            | Change::Owner(_)
            | Change::Status(Status::Enabled) => Ok(()),
        };
        also.map_err(&failed)?;
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
        self.list_users(which(scope, filter), page).await
    }

    async fn admin(&self) -> Result<Option<User>, StoreError> {
        let failed = failed("read a user");
        let mut read = select();
        read.push(" WHERE admin = 1 ORDER BY created_at, id LIMIT 1");
        let row = read.query().fetch_optional(&self.readers).await;
        let user = row.map_err(&failed)?.map(|row| user(&row));
        user.transpose().map_err(&failed)
    }

    async fn record(&self, events: Vec<Event>) -> Result<(), StoreError> {
        self.record_events(events).await
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
        let mut members = which(Scope::Everybody, filter);
        members.push(" AND users.id IN (SELECT subject FROM user_policies WHERE object = ");
        members.bind(group.as_bytes());
        members.push(if vouched { " AND vouched = 1)" } else { ")" });
        self.list_users(members, page).await
    }
}

impl Database {
    async fn list_users(&self, which: Statement, page: Page) -> Result<Listing<User>, StoreError> {
        let failed = failed("list users");
        let select = format!("SELECT {COLUMNS}");
        let order = "users.created_at, users.id";
        let rows = self.page(&select, which, order, page).await;
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

fn which(scope: Scope, filter: &UserFilter) -> Statement {
    let mut which = Statement::new(" FROM users WHERE 1 = 1");
    if filter.status != StatusFilter::All {
        let enabled = flag(filter.status == StatusFilter::Enabled);
        which.push(" AND users.enabled = ").bind(enabled);
    }
    if let Some(name) = &filter.name {
        which.push(" AND users.name = ").bind(name.as_str());
    }
    if let Some(identity) = &filter.identity {
        which.push(" AND users.identity = ").bind(identity.as_str());
    }
    if let Some(tag) = &filter.tag {
        which.push(" AND users.id IN (SELECT user_id FROM user_tags WHERE tag = ");
        which.bind(tag.as_str()).push(")");
    }
    if let Some(owner) = filter.owner {
        which.push(" AND users.owner = ").bind(owner.as_bytes());
    }
    if let Some(wanted) = &filter.metadata {
        let containing = metadata::containing(Kind::User, "users.id", wanted);
        which.push(" AND ").append(&containing);
    }
    if let Scope::Of(user, visibility) = scope {
        seen_by(user, visibility, &mut which);
    }
    which
}

fn seen_by(user: UserId, visibility: Visibility, which: &mut Statement) {
    match visibility {
        Visibility::Mine => {
            which.push(" AND users.owner = ").bind(user.as_bytes());
        }
        Visibility::Shared => {
            which.push(" AND users.id IN (");
            shared_with(user, which);
            which.push(")");
        }
        Visibility::All => {
            which.push(" AND users.id IN (SELECT id FROM users AS mine WHERE mine.owner = ");
            which.bind(user.as_bytes()).push(" UNION ALL ");
            shared_with(user, which);
            which.push(")");
        }
    }
}

/// Who is, vouched for, in an enabled group where this user may list members.
fn shared_with(user: UserId, which: &mut Statement) {
    which.push(
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
}

/// Makes the tags of a user found.
async fn tag(connection: &mut AnyConnection, user: &User) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM user_tags WHERE user_id = $1")
        .bind(user.id.as_bytes().as_slice())
        .execute(&mut *connection)
        .await?;
    for tag in &user.tags {
        sqlx::query("INSERT INTO user_tags (tag, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(tag)
            .bind(user.id.as_bytes().as_slice())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Ends all logins and resets of a user.
pub(crate) async fn sign_out(
    connection: &mut AnyConnection,
    user: UserId,
) -> Result<(), sqlx::Error> {
    for table in [
        "DELETE FROM logins WHERE user_id = $1",
        "DELETE FROM resets WHERE user_id = $1",
    ] {
        sqlx::query(table)
            .bind(user.as_bytes().as_slice())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
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
