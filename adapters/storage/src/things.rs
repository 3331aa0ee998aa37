//! Things, channels and grants in the database.

use async_trait::async_trait;
use rollcall_domain::event::Event;
use rollcall_domain::identity::{ChannelId, KeyHash, ThingId, Timestamp, UserId};
use rollcall_domain::ports::StoreError;
use rollcall_domain::things::{Actions, Channel, Grant, Listing, Page, Status, Thing, ThingStore};
use rollcall_domain::vault::{KeptKey, SealedKey};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::database::{Database, failed, taken};

#[async_trait]
impl ThingStore for Database {
    async fn add_things(
        &self,
        things: &[(Thing, KeptKey)],
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        let failed = failed("keep things");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        for (thing, key) in things {
            sqlx::query(
                "INSERT INTO things
                 (id, owner, name, tags, metadata, key_hash, sealed_key, enabled, created_at)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(thing.id.as_bytes().as_slice())
            .bind(thing.owner.as_bytes().as_slice())
            .bind(&thing.name)
            .bind(json(&thing.tags))
            .bind(json(&thing.metadata))
            .bind(key.hash.as_bytes().as_slice())
            .bind(key.sealed.as_ref().map(SealedKey::as_bytes))
            .bind(thing.status == Status::Enabled)
            .bind(thing.created_at.0.cast_signed())
            .execute(&mut *transaction)
            .await
            .map_err(taken("keep things", "the key"))?;
        }
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn set_thing_status(&self, thing: &Thing, events: Vec<Event>) -> Result<(), StoreError> {
        let failed = failed("keep the status of a thing");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        sqlx::query("UPDATE things SET enabled = ?, updated_at = ?, updated_by = ? WHERE id = ?")
            .bind(thing.status == Status::Enabled)
            .bind(thing.updated_at.map(|at| at.0.cast_signed()))
            .bind(thing.updated_by.map(|by| by.as_bytes().to_vec()))
            .bind(thing.id.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn set_thing_key(
        &self,
        thing: &Thing,
        key: &KeptKey,
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        let failed = failed("keep the key of a thing");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        sqlx::query(
            "UPDATE things SET key_hash = ?, sealed_key = ?, updated_at = ?, updated_by = ?
             WHERE id = ?",
        )
        .bind(key.hash.as_bytes().as_slice())
        .bind(key.sealed.as_ref().map(SealedKey::as_bytes))
        .bind(thing.updated_at.map(|at| at.0.cast_signed()))
        .bind(thing.updated_by.map(|by| by.as_bytes().to_vec()))
        .bind(thing.id.as_bytes().as_slice())
        .execute(&mut *transaction)
        .await
        .map_err(taken("keep the key of a thing", "the key"))?;
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn thing(&self, owner: UserId, id: ThingId) -> Result<Option<Thing>, StoreError> {
        let failed = failed("read a thing");
        let row = sqlx::query(
            "SELECT id, owner, name, tags, metadata, enabled, created_at, updated_at, updated_by
             FROM things WHERE id = ? AND owner = ?",
        )
        .bind(id.as_bytes().as_slice())
        .bind(owner.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await
        .map_err(&failed)?;
        row.map(|row| thing(&row)).transpose().map_err(&failed)
    }

    async fn sealed_key(&self, id: ThingId) -> Result<Option<SealedKey>, StoreError> {
        let bytes: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT sealed_key FROM things WHERE id = ?")
                .bind(id.as_bytes().as_slice())
                .fetch_optional(&self.readers)
                .await
                .map_err(failed("read the key of a thing"))?;
        Ok(bytes.flatten().map(SealedKey::from_bytes))
    }

    async fn things(&self, owner: UserId, page: Page) -> Result<Listing<Thing>, StoreError> {
        let failed = failed("list things");
        let rows = sqlx::query(
            "SELECT id, owner, name, tags, metadata, enabled, created_at, updated_at, updated_by
             FROM things WHERE owner = ? ORDER BY created_at, id LIMIT ? OFFSET ?",
        )
        .bind(owner.as_bytes().as_slice())
        .bind(page.limit.cast_signed())
        .bind(page.offset.cast_signed())
        .fetch_all(&self.readers)
        .await
        .map_err(&failed)?;
        let items = rows
            .iter()
            .map(thing)
            .collect::<Result<_, _>>()
            .map_err(&failed)?;
        let total: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM things WHERE owner = ?")
            .bind(owner.as_bytes().as_slice())
            .fetch_one(&self.readers)
            .await
            .map_err(&failed)?;
        Ok(Listing {
            items,
            total: total.cast_unsigned(),
        })
    }

    async fn add_channels(
        &self,
        channels: &[Channel],
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        let failed = failed("keep channels");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        for channel in channels {
            sqlx::query(
                "INSERT INTO channels (id, owner, name, metadata, enabled, created_at)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(channel.id.as_bytes().as_slice())
            .bind(channel.owner.as_bytes().as_slice())
            .bind(&channel.name)
            .bind(json(&channel.metadata))
            .bind(channel.status == Status::Enabled)
            .bind(channel.created_at.0.cast_signed())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        }
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn set_channel_status(
        &self,
        channel: &Channel,
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        let failed = failed("keep the status of a channel");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        sqlx::query("UPDATE channels SET enabled = ?, updated_at = ?, updated_by = ? WHERE id = ?")
            .bind(channel.status == Status::Enabled)
            .bind(channel.updated_at.map(|at| at.0.cast_signed()))
            .bind(channel.updated_by.map(|by| by.as_bytes().to_vec()))
            .bind(channel.id.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn channel(&self, owner: UserId, id: ChannelId) -> Result<Option<Channel>, StoreError> {
        let failed = failed("read a channel");
        let row = sqlx::query(
            "SELECT id, owner, name, metadata, enabled, created_at, updated_at, updated_by
             FROM channels WHERE id = ? AND owner = ?",
        )
        .bind(id.as_bytes().as_slice())
        .bind(owner.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await
        .map_err(&failed)?;
        row.map(|row| channel(&row)).transpose().map_err(&failed)
    }

    async fn channels(&self, owner: UserId, page: Page) -> Result<Listing<Channel>, StoreError> {
        let failed = failed("list channels");
        let rows = sqlx::query(
            "SELECT id, owner, name, metadata, enabled, created_at, updated_at, updated_by
             FROM channels WHERE owner = ? ORDER BY created_at, id LIMIT ? OFFSET ?",
        )
        .bind(owner.as_bytes().as_slice())
        .bind(page.limit.cast_signed())
        .bind(page.offset.cast_signed())
        .fetch_all(&self.readers)
        .await
        .map_err(&failed)?;
        let items = rows
            .iter()
            .map(channel)
            .collect::<Result<_, _>>()
            .map_err(&failed)?;
        let total: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM channels WHERE owner = ?")
            .bind(owner.as_bytes().as_slice())
            .fetch_one(&self.readers)
            .await
            .map_err(&failed)?;
        Ok(Listing {
            items,
            total: total.cast_unsigned(),
        })
    }

    async fn grant(&self, thing: ThingId, channel: ChannelId) -> Result<Option<Grant>, StoreError> {
        let failed = failed("read a grant");
        let row = sqlx::query(
            "SELECT can_read, can_write, created_at, updated_at FROM grants
             WHERE thing = ? AND channel = ?",
        )
        .bind(thing.as_bytes().as_slice())
        .bind(channel.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await
        .map_err(&failed)?;
        let grant = |row: SqliteRow| {
            let actions = Actions {
                read: row.try_get(0)?,
                write: row.try_get(1)?,
            };
            let created_at = Timestamp(row.try_get::<i64, _>(2)?.cast_unsigned());
            Ok(Grant {
                thing,
                channel,
                actions,
                created_at,
                updated_at: updated_at(&row, 3)?,
            })
        };
        row.map(grant).transpose().map_err(&failed)
    }

    async fn put_grants(&self, grants: &[Grant], events: Vec<Event>) -> Result<(), StoreError> {
        let failed = failed("keep grants");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        for Grant {
            thing,
            channel,
            actions,
            created_at,
            updated_at,
        } in grants
        {
            sqlx::query(
                "INSERT INTO grants (thing, channel, can_read, can_write, created_at, updated_at)
                 VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (thing, channel) DO UPDATE SET
                 can_read = excluded.can_read, can_write = excluded.can_write,
                 updated_at = excluded.updated_at",
            )
            .bind(thing.as_bytes().as_slice())
            .bind(channel.as_bytes().as_slice())
            .bind(actions.read)
            .bind(actions.write)
            .bind(created_at.0.cast_signed())
            .bind(updated_at.map(|at| at.0.cast_signed()))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        }
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn remove_grants(
        &self,
        pairs: &[(ThingId, ChannelId)],
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        let failed = failed("remove grants");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        for (thing, channel) in pairs {
            sqlx::query("DELETE FROM grants WHERE thing = ? AND channel = ?")
                .bind(thing.as_bytes().as_slice())
                .bind(channel.as_bytes().as_slice())
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
        }
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn record(&self, events: Vec<Event>) -> Result<(), StoreError> {
        let failed = failed("append to the event log");
        let transaction = self.writer.begin().await.map_err(&failed)?;
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn identify(&self, key: &KeyHash) -> Result<Option<ThingId>, StoreError> {
        let failed = failed("identify a thing");
        let row = sqlx::query("SELECT id FROM things WHERE key_hash = ? AND enabled = 1")
            .bind(key.as_bytes().as_slice())
            .fetch_optional(&self.readers)
            .await
            .map_err(&failed)?;
        row.map(|row| id(&row, 0).map(ThingId::from_bytes))
            .transpose()
            .map_err(&failed)
    }

    async fn authorize(
        &self,
        key: &KeyHash,
        channel: ChannelId,
    ) -> Result<Option<(ThingId, Actions)>, StoreError> {
        let failed = failed("authorize a thing");
        let row = sqlx::query(
            "SELECT things.id, can_read, can_write FROM things
             JOIN grants ON grants.thing = things.id
             JOIN channels ON channels.id = grants.channel
             WHERE key_hash = ? AND things.enabled = 1
             AND channels.id = ? AND channels.enabled = 1",
        )
        .bind(key.as_bytes().as_slice())
        .bind(channel.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await
        .map_err(&failed)?;
        let found = |row: SqliteRow| {
            let actions = Actions {
                read: row.try_get(1)?,
                write: row.try_get(2)?,
            };
            Ok((ThingId::from_bytes(id(&row, 0)?), actions))
        };
        row.map(found).transpose().map_err(&failed)
    }

    async fn is_enabled(&self, thing: ThingId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM things WHERE id = ? AND enabled = 1")
            .bind(thing.as_bytes().as_slice())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("identify a thing"))?;
        Ok(row.is_some())
    }

    async fn allowed(
        &self,
        thing: ThingId,
        channel: ChannelId,
    ) -> Result<Option<Actions>, StoreError> {
        let failed = failed("authorize a thing");
        let row = sqlx::query(
            "SELECT can_read, can_write FROM things
             JOIN grants ON grants.thing = things.id
             JOIN channels ON channels.id = grants.channel
             WHERE things.id = ? AND things.enabled = 1
             AND channels.id = ? AND channels.enabled = 1",
        )
        .bind(thing.as_bytes().as_slice())
        .bind(channel.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await
        .map_err(&failed)?;
        let found = |row: SqliteRow| {
            Ok(Actions {
                read: row.try_get(0)?,
                write: row.try_get(1)?,
            })
        };
        row.map(found).transpose().map_err(&failed)
    }
}

fn thing(row: &SqliteRow) -> Result<Thing, sqlx::Error> {
    Ok(Thing {
        id: ThingId::from_bytes(id(row, 0)?),
        owner: UserId::from_bytes(id(row, 1)?),
        name: row.try_get(2)?,
        tags: from_json(row, 3)?,
        metadata: from_json(row, 4)?,
        status: status(row, 5)?,
        created_at: Timestamp(row.try_get::<i64, _>(6)?.cast_unsigned()),
        updated_at: updated_at(row, 7)?,
        updated_by: updated_by(row, 8)?,
    })
}

fn channel(row: &SqliteRow) -> Result<Channel, sqlx::Error> {
    Ok(Channel {
        id: ChannelId::from_bytes(id(row, 0)?),
        owner: UserId::from_bytes(id(row, 1)?),
        name: row.try_get(2)?,
        metadata: from_json(row, 3)?,
        status: status(row, 4)?,
        created_at: Timestamp(row.try_get::<i64, _>(5)?.cast_unsigned()),
        updated_at: updated_at(row, 6)?,
        updated_by: updated_by(row, 7)?,
    })
}

pub(crate) fn id(row: &SqliteRow, column: usize) -> Result<[u8; 16], sqlx::Error> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes
        .try_into()
        .map_err(|_| sqlx::Error::Decode("an id has 16 bytes".into()))
}

pub(crate) fn status(row: &SqliteRow, column: usize) -> Result<Status, sqlx::Error> {
    let enabled: bool = row.try_get(column)?;
    Ok(if enabled {
        Status::Enabled
    } else {
        Status::Disabled
    })
}

fn updated_at(row: &SqliteRow, column: usize) -> Result<Option<Timestamp>, sqlx::Error> {
    let at: Option<i64> = row.try_get(column)?;
    Ok(at.map(|at| Timestamp(at.cast_unsigned())))
}

fn updated_by(row: &SqliteRow, column: usize) -> Result<Option<UserId>, sqlx::Error> {
    let by: Option<&[u8]> = row.try_get(column)?;
    by.map(|_| id(row, column).map(UserId::from_bytes))
        .transpose()
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("invariant: JSON keys are text")
}

fn from_json<T: serde::de::DeserializeOwned>(
    row: &SqliteRow,
    column: usize,
) -> Result<T, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}
