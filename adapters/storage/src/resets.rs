//! Resets of passwords in the database.

use async_trait::async_trait;
use rollcall_domain::event::Event;
use rollcall_domain::groups::Tell;
use rollcall_domain::identity::{Timestamp, UserId};
use rollcall_domain::ports::StoreError;
use rollcall_domain::users::{DueReset, Reset, ResetId, ResetStore, TokenHash, User};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::database::{Database, failed};
use crate::rows::{id, moment, number, optional_moment};
use crate::statement::Statement;
use crate::users::{COLUMNS, sign_out, user};

#[async_trait]
impl ResetStore for Database {
    async fn add_reset(
        &self,
        reset: &Reset,
        expired: Timestamp,
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        let failed = failed("keep a reset");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        sqlx::query("DELETE FROM resets WHERE created_at < $1")
            .bind(expired.0.cast_signed())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        let due = reset.user.map(|_| reset.created_at.0.cast_signed());
        sqlx::query(
            "INSERT INTO resets (id, user_id, host, created_at, due_at, attempts) VALUES ($1, $2, $3, $4, $5, 0)",
        )
        .bind(reset.id.as_bytes().as_slice())
        .bind(reset.user.map(|user| user.as_bytes().to_vec()))
        .bind(&reset.host)
        .bind(reset.created_at.0.cast_signed())
        .bind(due)
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn due_resets(&self, now: Timestamp, limit: u32) -> Result<Vec<DueReset>, StoreError> {
        let failed = failed("read resets");
        let mut read = Statement::new(format!(
            "SELECT {COLUMNS}, resets.id, resets.host, resets.created_at, resets.attempts FROM resets"
        ));
        read.push(" JOIN users ON users.id = resets.user_id WHERE users.enabled = 1");
        read.push(" AND due_at <= ").bind(now.0.cast_signed());
        read.push(" ORDER BY due_at LIMIT ").bind(i64::from(limit));
        let rows = read.query().fetch_all(&self.readers).await;
        let due = |row: &AnyRow| {
            Ok(DueReset {
                user: user(row)?,
                id: ResetId::from_bytes(id(row, 11)?),
                host: row.try_get(12)?,
                created_at: moment(row, 13)?,
                attempts: u32::try_from(number(row, 14)?).unwrap_or(u32::MAX),
            })
        };
        let rows = rows.map_err(&failed)?;
        rows.iter()
            .map(due)
            .collect::<Result<_, _>>()
            .map_err(&failed)
    }

    async fn next_reset(&self) -> Result<Option<Timestamp>, StoreError> {
        let failed = failed("read resets");
        let row = sqlx::query(
            "SELECT MIN(due_at) FROM resets JOIN users ON users.id = resets.user_id WHERE users.enabled = 1",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(&failed)?;
        optional_moment(&row, 0).map_err(&failed)
    }

    async fn arm_reset(
        &self,
        id: ResetId,
        token: &TokenHash,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE resets SET token = $1, expires_at = $2, attempts = attempts + 1 WHERE id = $3",
        )
        .bind(token.0.as_slice())
        .bind(expires_at.0.cast_signed())
        .bind(id.as_bytes().as_slice())
        .execute(&self.writer)
        .await
        .map(|_| ())
        .map_err(failed("keep the hash of a reset token"))
    }

    async fn reset_sent(&self, id: ResetId, events: Vec<Event>) -> Result<(), StoreError> {
        let failed = failed("keep that a mail was sent");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        sqlx::query("UPDATE resets SET due_at = NULL WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn defer_reset(&self, id: ResetId, until: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE resets SET due_at = $1 WHERE id = $2")
            .bind(until.0.cast_signed())
            .bind(id.as_bytes().as_slice())
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(failed("keep when a mail is due"))
    }

    async fn drop_reset(&self, id: ResetId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM resets WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(failed("drop a reset"))
    }

    async fn reset_by_token(
        &self,
        token: &TokenHash,
        now: Timestamp,
    ) -> Result<Option<UserId>, StoreError> {
        let failed = failed("read a reset");
        let row = sqlx::query(
            "SELECT users.id FROM resets JOIN users ON users.id = resets.user_id
             WHERE token = $1 AND expires_at > $2 AND users.enabled = 1",
        )
        .bind(token.0.as_slice())
        .bind(now.0.cast_signed())
        .fetch_optional(&self.readers)
        .await
        .map_err(&failed)?;
        row.map(|row| id(&row, 0).map(UserId::from_bytes))
            .transpose()
            .map_err(&failed)
    }

    async fn complete_reset(
        &self,
        token: &TokenHash,
        now: Timestamp,
        password: &str,
        tell: &Tell<User>,
    ) -> Result<Option<User>, StoreError> {
        let failed = failed("reset a password");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        let used = sqlx::query(
            "DELETE FROM resets WHERE token = $1 AND expires_at > $2 RETURNING user_id",
        )
        .bind(token.0.as_slice())
        .bind(now.0.cast_signed())
        .fetch_optional(&mut *transaction)
        .await
        .map_err(&failed)?;
        let Some(used) = used else {
            return Ok(None);
        };
        let owner = UserId::from_bytes(id(&used, 0).map_err(&failed)?);
        let mut change = Statement::new("UPDATE users SET password = ");
        change.bind(password);
        change.push(", updated_at = ").bind(now.0.cast_signed());
        change.push(", updated_by = id WHERE enabled = 1 AND id = ");
        change
            .bind(owner.as_bytes())
            .push(" RETURNING ")
            .push(COLUMNS);
        let row = change.query().fetch_optional(&mut *transaction).await;
        let Some(row) = row.map_err(&failed)? else {
            return Ok(None);
        };
        let user = user(&row).map_err(&failed)?;
        sign_out(&mut transaction, owner).await.map_err(&failed)?;
        let events = vec![tell(&user)];
        self.commit(transaction, events).await.map_err(&failed)?;
        Ok(Some(user))
    }
}
