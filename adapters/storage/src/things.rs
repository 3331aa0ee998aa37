//! Things, channels and grants in the database.

use async_trait::async_trait;
use rollcall_domain::event::Event;
use rollcall_domain::identity::{ChannelId, KeyHash, ThingId, UserId};
use rollcall_domain::ports::StoreError;
use rollcall_domain::things::{Actions, Channel, Grant, Listing, Page, Status, Thing, ThingStore};
use rollcall_domain::vault::{KeptKey, SealedKey};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::database::{Database, failed, taken};
use crate::metadata::{self, Kind};
use crate::rows::{
    flag, from_json, id, is_set, json, moment, optional_id, optional_moment, status,
};

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
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            )
            .bind(thing.id.as_bytes().as_slice())
            .bind(thing.owner.as_bytes().as_slice())
            .bind(&thing.name)
            .bind(json(&thing.tags))
            .bind(json(&thing.metadata))
            .bind(key.hash.as_bytes().as_slice())
            .bind(key.sealed.as_ref().map(SealedKey::as_bytes))
            .bind(flag(thing.status == Status::Enabled))
            .bind(thing.created_at.0.cast_signed())
            .execute(&mut *transaction)
            .await
            .map_err(taken("keep things", "the key"))?;
            let (id, metadata) = (thing.id.as_bytes(), &thing.metadata);
            metadata::add_terms(&mut transaction, Kind::Thing, id, metadata)
                .await
                .map_err(&failed)?;
        }
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn set_thing_status(&self, thing: &Thing, events: Vec<Event>) -> Result<(), StoreError> {
        let failed = failed("keep the status of a thing");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        sqlx::query(
            "UPDATE things SET enabled = $1, updated_at = $2, updated_by = $3 WHERE id = $4",
        )
        .bind(flag(thing.status == Status::Enabled))
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
            "UPDATE things SET key_hash = $1, sealed_key = $2, updated_at = $3, updated_by = $4
             WHERE id = $5",
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
             FROM things WHERE id = $1 AND owner = $2",
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
            sqlx::query_scalar("SELECT sealed_key FROM things WHERE id = $1")
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
             FROM things WHERE owner = $1 ORDER BY created_at, id LIMIT $2 OFFSET $3",
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
        let total: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM things WHERE owner = $1")
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
                "INSERT INTO channels
                 (id, owner, path, name, repeated, description, metadata, enabled, created_at)
                 VALUES ($1, $2, $1, $3, 1, '', $4, $5, $6)",
            )
            .bind(channel.id.as_bytes().as_slice())
            .bind(channel.owner.as_bytes().as_slice())
            .bind(&channel.name)
            .bind(json(&channel.metadata))
            .bind(flag(channel.status == Status::Enabled))
            .bind(channel.created_at.0.cast_signed())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
            let (id, metadata) = (channel.id.as_bytes(), &channel.metadata);
            metadata::add_terms(&mut transaction, Kind::Channel, id, metadata)
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
        sqlx::query(
            "UPDATE channels SET enabled = $1, updated_at = $2, updated_by = $3 WHERE id = $4",
        )
        .bind(flag(channel.status == Status::Enabled))
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
             FROM channels WHERE id = $1 AND owner = $2",
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
             FROM channels WHERE owner = $1 ORDER BY created_at, id LIMIT $2 OFFSET $3",
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
        let total: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM channels WHERE owner = $1")
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
            "SELECT (actions & 512) / 512, (actions & 256) / 256, created_at, updated_at
             FROM thing_policies WHERE subject = $1 AND is_user = 0 AND object = $2",
        )
        .bind(thing.as_bytes().as_slice())
        .bind(channel.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await
        .map_err(&failed)?;
        let grant = |row: AnyRow| {
            let actions = Actions {
                read: is_set(&row, 0)?,
                write: is_set(&row, 1)?,
            };
            let created_at = moment(&row, 2)?;
            Ok(Grant {
                thing,
                channel,
                actions,
                created_at,
                updated_at: optional_moment(&row, 3)?,
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
                "INSERT INTO thing_policies
                 (subject, is_user, object, actions, owner, vouched, created_at, updated_at)
                 VALUES ($1, 0, $2, $3, (SELECT owner FROM channels WHERE id = $2), 1, $4, $5)
                 ON CONFLICT (subject, is_user, object) DO UPDATE SET
                 actions = excluded.actions, updated_at = excluded.updated_at",
            )
            .bind(thing.as_bytes().as_slice())
            .bind(channel.as_bytes().as_slice())
            .bind(flag(actions.read) * 512 + flag(actions.write) * 256)
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
            sqlx::query(
                "DELETE FROM thing_policies WHERE subject = $1 AND is_user = 0 AND object = $2",
            )
            .bind(thing.as_bytes().as_slice())
            .bind(channel.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        }
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn record(&self, events: Vec<Event>) -> Result<(), StoreError> {
        self.record_events(events).await
    }

    async fn identify(&self, key: &KeyHash) -> Result<Option<ThingId>, StoreError> {
        let failed = failed("identify a thing");
        let row = sqlx::query("SELECT id FROM things WHERE key_hash = $1 AND enabled = 1")
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
            "SELECT things.id, (actions & 512) / 512, (actions & 256) / 256 FROM things
             JOIN thing_policies ON subject = things.id AND is_user = 0
             JOIN channels ON channels.id = object
             WHERE key_hash = $1 AND things.enabled = 1
             AND channels.id = $2 AND channels.enabled = 1",
        )
        .bind(key.as_bytes().as_slice())
        .bind(channel.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await
        .map_err(&failed)?;
        let found = |row: AnyRow| {
            let actions = Actions {
                read: is_set(&row, 1)?,
                write: is_set(&row, 2)?,
            };
            Ok((ThingId::from_bytes(id(&row, 0)?), actions))
        };
        row.map(found).transpose().map_err(&failed)
    }

    async fn is_enabled(&self, thing: ThingId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM things WHERE id = $1 AND enabled = 1")
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
            "SELECT (actions & 512) / 512, (actions & 256) / 256 FROM things
             JOIN thing_policies ON subject = things.id AND is_user = 0
             JOIN channels ON channels.id = object
             WHERE things.id = $1 AND things.enabled = 1
             AND channels.id = $2 AND channels.enabled = 1",
        )
        .bind(thing.as_bytes().as_slice())
        .bind(channel.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await
        .map_err(&failed)?;
        let found = |row: AnyRow| {
            Ok(Actions {
                read: is_set(&row, 0)?,
                write: is_set(&row, 1)?,
            })
        };
        row.map(found).transpose().map_err(&failed)
    }
}

fn thing(row: &AnyRow) -> Result<Thing, sqlx::Error> {
    Ok(Thing {
        id: ThingId::from_bytes(id(row, 0)?),
        owner: UserId::from_bytes(id(row, 1)?),
        name: row.try_get(2)?,
        tags: from_json(row, 3)?,
        metadata: from_json(row, 4)?,
        status: status(row, 5)?,
        created_at: moment(row, 6)?,
        updated_at: optional_moment(row, 7)?,
        updated_by: optional_id(row, 8)?.map(UserId::from_bytes),
    })
}

fn channel(row: &AnyRow) -> Result<Channel, sqlx::Error> {
    Ok(Channel {
        id: ChannelId::from_bytes(id(row, 0)?),
        owner: UserId::from_bytes(id(row, 1)?),
        name: row.try_get(2)?,
        metadata: from_json(row, 3)?,
        status: status(row, 4)?,
        created_at: moment(row, 5)?,
        updated_at: optional_moment(row, 6)?,
        updated_by: optional_id(row, 7)?.map(UserId::from_bytes),
    })
}
