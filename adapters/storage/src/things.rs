//! Things in the database.

mod whose;

use async_trait::async_trait;
use rollcall_domain::entity::{Status, Update};
use rollcall_domain::event::Event;
use rollcall_domain::groups::Tell;
use rollcall_domain::identity::{ChannelId, KeyHash, ThingId, UserId};
use rollcall_domain::listing::{Listing, Page};
use rollcall_domain::policies::{self, Action};
use rollcall_domain::ports::StoreError;
use rollcall_domain::things::{Actions, Scope, Thing, ThingChange, ThingFilter, ThingStore};
use rollcall_domain::vault::{KeptKey, SealedKey};
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, AnyPool, Row, Transaction};

use crate::database::{Database, failed};
use crate::lists::{self, Entity, Span};
use crate::rows::{
    flag, from_json, hash, id, json, moment, number, optional_id, optional_moment, status,
};
use crate::statement::{self, Statement};

pub(crate) const COLUMNS: &str = "things.id, things.owner, things.name, things.tags, things.identity, \
    things.metadata, things.enabled, things.created_at, things.updated_at, things.updated_by";

#[async_trait]
impl ThingStore for Database {
    async fn add_things(
        &self,
        things: &[(Thing, KeptKey)],
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        let failed = failed("keep things");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        // Two unique values: which of them another has is asked only when one is taken.
        if let Err(error) = insert(&mut transaction, things).await {
            if !is_taken(&error) {
                return Err(failed(error));
            }
            transaction.rollback().await.map_err(&failed)?;
            let is_there = is_one_there(&self.readers, things).await;
            return Err(StoreError::Taken(match is_there.map_err(&failed)? {
                true => "id",
                false => "key",
            }));
        }
        let entities: Vec<Entity<'_>> = things.iter().map(|(thing, _)| thing.into()).collect();
        lists::add(&mut transaction, self.span, &entities)
            .await
            .map_err(&failed)?;
        self.commit(transaction, events).await.map_err(&failed)
    }

    async fn change_thing(
        &self,
        id: ThingId,
        change: &ThingChange,
        update: Update,
        tell: &Tell<Thing>,
    ) -> Result<Option<Thing>, StoreError> {
        let doing = "change a thing";
        let mut transaction = self.writer.begin().await.map_err(failed(doing))?;
        let changed = changed(&mut transaction, self.span, id, change, update).await;
        let changed = changed.map_err(crate::database::taken(doing, "key"))?;
        let Some(thing) = changed else {
            return Ok(None);
        };
        let committed = self.commit(transaction, vec![tell(&thing)]).await;
        committed.map_err(failed(doing))?;
        Ok(Some(thing))
    }

    async fn thing(&self, id: ThingId) -> Result<Option<Thing>, StoreError> {
        let failed = failed("read a thing");
        let mut query = Statement::new(format!("SELECT {COLUMNS} FROM things WHERE id = "));
        query.bind(id.as_bytes());
        let row = query.query().fetch_optional(&self.readers).await;
        let row = row.map_err(&failed)?;
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

    async fn lend_key(
        &self,
        id: ThingId,
        owner: UserId,
        loan: Option<KeyHash>,
    ) -> Result<bool, StoreError> {
        let mut lend = Statement::new("UPDATE things SET key_loan = ");
        match loan {
            Some(loan) => lend.bind(loan.as_bytes().to_vec()),
            None => lend.push("NULL"),
        };
        lend.push(" WHERE id = ").bind(id.as_bytes());
        lend.push(" AND owner = ").bind(owner.as_bytes());
        let lent = lend.query().execute(&self.writer).await;
        let lent = lent.map_err(failed("lend the key of a thing"))?;
        Ok(lent.rows_affected() > 0)
    }

    async fn lent_key(
        &self,
        id: ThingId,
    ) -> Result<Option<(KeyHash, Option<SealedKey>)>, StoreError> {
        let failed = failed("read the key of a thing");
        let row = sqlx::query(
            "SELECT key_loan, sealed_key FROM things
             WHERE id = $1 AND enabled = 1 AND key_loan IS NOT NULL",
        )
        .bind(id.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await
        .map_err(&failed)?;
        let lent = |row: AnyRow| {
            let sealed: Option<Vec<u8>> = row.try_get(1)?;
            Ok((hash(&row, 0)?, sealed.map(SealedKey::from_bytes)))
        };
        row.map(lent).transpose().map_err(&failed)
    }

    async fn things(
        &self,
        filter: &ThingFilter,
        scope: Scope,
        page: Page,
    ) -> Result<Listing<Thing>, StoreError> {
        let listed = whose::things(self, filter, scope, page).await;
        listed.map_err(failed("list things"))
    }

    async fn things_of_channel(
        &self,
        channel: ChannelId,
        filter: &ThingFilter,
        page: Page,
    ) -> Result<Listing<Thing>, StoreError> {
        let listed = whose::things_of_channel(self, channel, filter, page).await;
        listed.map_err(failed("list the things of a channel"))
    }

    async fn record(&self, events: Vec<Event>) {
        self.announce(events).await;
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
            "SELECT thing_policies.actions, things.id FROM things
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
        let found = |row: AnyRow| Ok((ThingId::from_bytes(id(&row, 1)?), actions(&row)?));
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
            "SELECT thing_policies.actions FROM things
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
        row.map(|row| actions(&row)).transpose().map_err(&failed)
    }

    async fn memberships(
        &self,
        things: &[ThingId],
    ) -> Result<Vec<(ThingId, ChannelId)>, StoreError> {
        let failed = failed("find the channels of things");
        let talks: policies::Actions = [Action::MessageRead, Action::MessageWrite]
            .into_iter()
            .collect();
        let mut query = Statement::new(
            "SELECT subject, object FROM thing_policies JOIN channels ON channels.id = object
             WHERE is_user = 0 AND channels.enabled = 1 AND (actions & ",
        );
        query.bind(i64::from(talks.bits())).push(") <> 0");
        query.push(" AND subject IN (");
        for (n, thing) in things.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            query.push(comma).bind(thing.as_bytes());
        }
        query.push(if things.is_empty() { "NULL)" } else { ")" });
        let rows = query.query().fetch_all(&self.readers).await;
        let rows = rows.map_err(&failed)?;
        let pair = |row: &AnyRow| {
            let thing = ThingId::from_bytes(id(row, 0)?);
            Ok((thing, ChannelId::from_bytes(id(row, 1)?)))
        };
        rows.iter()
            .map(pair)
            .collect::<Result<_, _>>()
            .map_err(&failed)
    }
}

async fn insert(
    connection: &mut AnyConnection,
    things: &[(Thing, KeptKey)],
) -> Result<(), sqlx::Error> {
    let rows = things.iter().map(|(thing, key)| {
        let sealed = key.sealed.as_ref().map(|sealed| sealed.as_bytes().to_vec());
        [
            thing.id.as_bytes().into(),
            thing.owner.as_bytes().into(),
            thing.name.as_str().into(),
            json(&thing.tags).into(),
            thing.identity.as_str().into(),
            json(&thing.metadata).into(),
            key.hash.as_bytes().to_vec().into(),
            sealed.into(),
            flag(thing.status == Status::Enabled).into(),
            thing.created_at.0.cast_signed().into(),
        ]
    });
    let insert = "INSERT INTO things
         (id, owner, name, tags, identity, metadata, key_hash, sealed_key, enabled, created_at)";
    statement::insert(connection, insert, rows.collect()).await
}

fn is_taken(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|it| it.is_unique_violation())
}

/// Whether the id of one is that of another, or of one that is kept.
async fn is_one_there(readers: &AnyPool, things: &[(Thing, KeptKey)]) -> Result<bool, sqlx::Error> {
    let mut ids: Vec<[u8; 16]> = things.iter().map(|(it, _)| *it.id.as_bytes()).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() < things.len() {
        return Ok(true);
    }
    for ids in ids.chunks(256) {
        let mut query = Statement::new("SELECT 1 FROM things WHERE id IN (");
        query.bind_all(ids).push(") LIMIT 1");
        if query.query().fetch_optional(readers).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Changes what the change is about, and nothing else.
async fn changed(
    transaction: &mut Transaction<'_, Any>,
    span: Span,
    id: ThingId,
    change: &ThingChange,
    update: Update,
) -> Result<Option<Thing>, sqlx::Error> {
    let mut query = Statement::new("UPDATE things SET updated_at = ");
    query
        .bind(update.at.0.cast_signed())
        .push(", updated_by = ")
        .bind(update.by.as_bytes());
    let mut only = "";
    match change {
        ThingChange::About { name, metadata } => {
            if let Some(name) = name {
                query.push(", name = ").bind(name.as_str());
            }
            if let Some(metadata) = metadata {
                query.push(", metadata = ").bind(&*json(metadata));
            }
        }
        ThingChange::Tags(tags) => _ = query.push(", tags = ").bind(&*json(tags)),
        ThingChange::Owner(owner) => {
            query.push(", key_loan = NULL, owner = ");
            query.bind(owner.as_bytes());
        }
        ThingChange::Status(Status::Enabled) => {
            query.push(", enabled = 1");
            only = " AND enabled = 0";
        }
        ThingChange::Status(Status::Disabled) => {
            query.push(", enabled = 0");
            only = " AND enabled = 1";
        }
        ThingChange::Key(key) => {
            query
                .push(", key_hash = ")
                .bind(key.hash.as_bytes().to_vec());
            match &key.sealed {
                Some(sealed) => {
                    _ = query
                        .push(", sealed_key = ")
                        .bind(sealed.as_bytes().to_vec());
                }
                None => _ = query.push(", sealed_key = NULL"),
            }
        }
    }
    // Written, so that nobody else changes it meanwhile.
    let mut before = Statement::new("UPDATE things SET enabled = enabled WHERE id = ");
    before.bind(id.as_bytes()).push(" RETURNING ").push(COLUMNS);
    let before = before.query().fetch_optional(&mut **transaction).await?;
    query.push(" WHERE id = ").bind(id.as_bytes()).push(only);
    query.push(" RETURNING ").push(COLUMNS);
    let after = query.query().fetch_optional(&mut **transaction).await?;
    let (Some(before), Some(after)) = (before, after) else {
        return Ok(None);
    };
    let (before, after) = (thing(&before)?, thing(&after)?);
    let (old, new) = (Entity::from(&before), Entity::from(&after));
    lists::alter(transaction, span, &old, &new).await?;
    Ok(Some(after))
}

pub(crate) fn thing(row: &AnyRow) -> Result<Thing, sqlx::Error> {
    let updated = optional_moment(row, 8)?.zip(optional_id(row, 9)?);
    Ok(Thing {
        id: ThingId::from_bytes(id(row, 0)?),
        owner: UserId::from_bytes(id(row, 1)?),
        name: row.try_get(2)?,
        tags: from_json(row, 3)?,
        identity: row.try_get(4)?,
        metadata: from_json(row, 5)?,
        status: status(row, 6)?,
        created_at: moment(row, 7)?,
        update: updated.map(|(at, by)| Update {
            at,
            by: UserId::from_bytes(by),
        }),
    })
}

/// The first column: what a policy allows.
fn actions(row: &AnyRow) -> Result<Actions, sqlx::Error> {
    let bits = u16::try_from(number(row, 0)?).unwrap_or_default();
    Ok(policies::Actions::from_bits(bits).into())
}
