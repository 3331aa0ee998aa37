//! Users in the database.

use async_trait::async_trait;
use rollcall_domain::event::Event;
use rollcall_domain::identity::UserId;
use rollcall_domain::ports::StoreError;
use rollcall_domain::users::{User, UserStore};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::database::{Database, failed, taken};
use crate::rows::{flag, id, is_set, moment, status};

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
            "INSERT INTO users (id, identity, name, password, enabled, admin, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(user.id.as_bytes().as_slice())
        .bind(&user.identity)
        .bind(&user.name)
        .bind(password)
        .bind(flag(
            user.status == rollcall_domain::things::Status::Enabled,
        ))
        .bind(flag(user.admin))
        .bind(user.created_at.0.cast_signed())
        .execute(&mut *transaction)
        .await
        .map_err(taken("keep a user", "identity"))?;
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn admin(&self) -> Result<Option<User>, StoreError> {
        let failed = failed("read a user");
        let row = sqlx::query(
            "SELECT id, identity, name, enabled, admin, created_at FROM users
             WHERE admin = 1 AND enabled = 1 ORDER BY created_at LIMIT 1",
        )
        .fetch_optional(&self.readers)
        .await
        .map_err(&failed)?;
        row.map(|row| user(&row)).transpose().map_err(&failed)
    }

    async fn by_identity(&self, identity: &str) -> Result<Option<(User, String)>, StoreError> {
        let failed = failed("read a user");
        let row = sqlx::query(
            "SELECT id, identity, name, enabled, admin, created_at, password FROM users
             WHERE identity = $1 AND enabled = 1",
        )
        .bind(identity)
        .fetch_optional(&self.readers)
        .await
        .map_err(&failed)?;
        row.map(|row| Ok((user(&row)?, row.try_get(6)?)))
            .transpose()
            .map_err(&failed)
    }
}

fn user(row: &AnyRow) -> Result<User, sqlx::Error> {
    Ok(User {
        id: UserId::from_bytes(id(row, 0)?),
        identity: row.try_get(1)?,
        name: row.try_get(2)?,
        status: status(row, 3)?,
        admin: is_set(row, 4)?,
        created_at: moment(row, 5)?,
    })
}
