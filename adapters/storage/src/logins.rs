//! Logins in the database.

use async_trait::async_trait;
use rollcall_domain::event::Event;
use rollcall_domain::identity::Timestamp;
use rollcall_domain::ports::StoreError;
use rollcall_domain::users::{Login, LoginId, LoginStore, MAX_LOGINS, Rotated, TokenId, User};

use crate::database::{Database, failed};
use crate::statement::Statement;
use crate::users::{COLUMNS, user};

#[async_trait]
impl LoginStore for Database {
    async fn add_login(
        &self,
        login: &Login,
        password: &str,
        events: Vec<Event>,
    ) -> Result<bool, StoreError> {
        let failed = failed("keep a login");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        // Holds the row: who changes the password or disables the user comes before, or ends this login too.
        let held = sqlx::query(
            "UPDATE users SET enabled = enabled WHERE id = $1 AND password = $2 AND enabled = 1",
        )
        .bind(login.user.as_bytes().as_slice())
        .bind(password)
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        if held.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("DELETE FROM logins WHERE expires_at <= $1")
            .bind(login.created_at.0.cast_signed())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        // Leaves one place less than there are, which is for the new one.
        sqlx::query(
            "DELETE FROM logins WHERE user_id = $1 AND created_at <= (
                 SELECT created_at FROM logins WHERE user_id = $1 ORDER BY created_at DESC LIMIT 1 OFFSET $2
             )",
        )
        .bind(login.user.as_bytes().as_slice())
        .bind(i64::from(MAX_LOGINS) - 1)
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        sqlx::query(
            "INSERT INTO logins (id, user_id, refresh, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(login.id.as_bytes().as_slice())
        .bind(login.user.as_bytes().as_slice())
        .bind(login.refresh.as_bytes().as_slice())
        .bind(login.created_at.0.cast_signed())
        .bind(login.expires_at.0.cast_signed())
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        self.commit(transaction, events).await.map_err(&failed)?;
        Ok(true)
    }

    async fn login(&self, id: LoginId, now: Timestamp) -> Result<Option<User>, StoreError> {
        let failed = failed("read a login");
        let mut read = Statement::new(format!("SELECT {COLUMNS} FROM logins"));
        read.push(" JOIN users ON users.id = logins.user_id WHERE users.enabled = 1");
        read.push(" AND logins.id = ").bind(id.as_bytes());
        read.push(" AND expires_at > ").bind(now.0.cast_signed());
        let row = read.query().fetch_optional(&self.readers).await;
        let user = row.map_err(&failed)?.map(|row| user(&row));
        user.transpose().map_err(&failed)
    }

    async fn rotate_login(
        &self,
        login: &Login,
        new: TokenId,
        now: Timestamp,
        events: Vec<Event>,
    ) -> Result<Rotated, StoreError> {
        let failed = failed("keep a refresh token");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        let rotated = sqlx::query(
            "UPDATE logins SET refresh = $1, expires_at = $2
             WHERE id = $3 AND refresh = $4 AND expires_at > $5",
        )
        .bind(new.as_bytes().as_slice())
        .bind(login.expires_at.0.cast_signed())
        .bind(login.id.as_bytes().as_slice())
        .bind(login.refresh.as_bytes().as_slice())
        .bind(now.0.cast_signed())
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        if rotated.rows_affected() > 0 {
            self.commit(transaction, events).await.map_err(&failed)?;
            return Ok(Rotated::Done);
        }
        let ended = sqlx::query("DELETE FROM logins WHERE id = $1")
            .bind(login.id.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        self.commit(transaction, Vec::new())
            .await
            .map_err(&failed)?;
        Ok(match ended.rows_affected() {
            0 => Rotated::Gone,
            _ => Rotated::Reused,
        })
    }

    async fn end_login(&self, id: LoginId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM logins WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(failed("end a login"))
    }
}
