//! Configurations of the bootstrap service in the database.

mod aside;

use async_trait::async_trait;
use rollcall_domain::bootstrap::{
    Change, ChannelCopy, ConfigStore, Effect, Heard, KeptCertificates, KeptConfig, KeptFilter,
    SetAside, State,
};
use rollcall_domain::event::{Event, Stream};
use rollcall_domain::identity::{ChannelId, ThingId, Timestamp, UserId};
use rollcall_domain::listing::{Listing, Page};
use rollcall_domain::ports::StoreError;
use rollcall_domain::vault::{KeptKey, SealedKey};
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, Row, Transaction};

use crate::database::{Database, failed, taken};
use crate::rows::{from_json, hash, id, json, moment, number};
use crate::statement::Statement;

const COLUMNS: &str = "thing, owner, external_id, external_key_hash, external_key, thing_key_hash, \
     thing_key, name, content, client_cert, client_key, ca_cert, state, created_at, revision, loan";

#[async_trait]
impl ConfigStore for Database {
    async fn add_config(&self, config: &KeptConfig, events: Vec<Event>) -> Result<(), StoreError> {
        let failed = failed("keep a configuration");
        let mut transaction = self.begin_alone().await.map_err(&failed)?;
        let same = sqlx::query("SELECT 1 FROM configs WHERE external_id = $1")
            .bind(config.external_id.as_str())
            .fetch_optional(&mut *transaction);
        if same.await.map_err(&failed)?.is_some() {
            return Err(StoreError::Taken("external id"));
        }
        let insert = format!(
            "INSERT INTO configs ({COLUMNS}, small_name)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
        );
        let (hash, sealed) = key_columns(config.thing_key.as_ref());
        sqlx::query(sqlx::AssertSqlSafe(insert))
            .bind(config.thing.as_bytes().as_slice())
            .bind(config.owner.as_bytes().as_slice())
            .bind(config.external_id.as_str())
            .bind(config.external_key.hash.as_bytes().as_slice())
            .bind(sealed_column(config.external_key.sealed.as_ref()))
            .bind(hash)
            .bind(sealed)
            .bind(config.name.as_str())
            .bind(config.content.as_bytes())
            .bind(config.certificates.client_cert.as_str())
            .bind(config.certificates.client_key.as_bytes())
            .bind(config.certificates.ca_cert.as_str())
            .bind(i64::from(config.state.number()))
            .bind(config.created_at.0.cast_signed())
            .bind(config.revision.cast_signed())
            .bind(sealed_column(config.loan.as_ref()))
            .bind(config.name.to_lowercase())
            .execute(&mut *transaction)
            .await
            .map_err(taken("keep a configuration", "thing"))?;
        let mut told = Vec::new();
        for copy in &config.channels {
            let refreshed = connect(&mut transaction, config.thing, copy, config.created_at);
            if refreshed.await.map_err(&failed)? {
                told.push(copy.told());
            }
        }
        told.extend(events);
        self.commit(transaction, told).await.map_err(&failed)
    }

    async fn change_config(
        &self,
        thing: ThingId,
        revision: u64,
        change: Change,
        events: Vec<Event>,
    ) -> Result<bool, StoreError> {
        let failed = failed("change a configuration");
        let mut transaction = self.begin_alone().await.map_err(&failed)?;
        let mut update = Statement::new("UPDATE configs SET revision = revision + 1");
        write(&mut update, &change);
        update.push(" WHERE thing = ").bind(thing.as_bytes());
        update.push(" AND revision = ").bind(revision.cast_signed());
        let updated = update.query().execute(&mut *transaction).await;
        if updated.map_err(&failed)?.rows_affected() == 0 {
            return Ok(false);
        }
        let mut told = rewire(&mut transaction, thing, &change)
            .await
            .map_err(&failed)?;
        told.extend(events);
        self.commit(transaction, told).await.map_err(&failed)?;
        Ok(true)
    }

    async fn config(&self, thing: ThingId) -> Result<Option<KeptConfig>, StoreError> {
        let mut read = select();
        read.push(" WHERE thing = ").bind(thing.as_bytes());
        self.one(read).await.map_err(failed("read a configuration"))
    }

    async fn config_of_device(&self, external_id: &str) -> Result<Option<KeptConfig>, StoreError> {
        let mut read = select();
        read.push(" WHERE external_id = ").bind(external_id);
        self.one(read).await.map_err(failed("read a configuration"))
    }

    async fn configs(
        &self,
        filter: &KeptFilter,
        page: Page,
    ) -> Result<Listing<KeptConfig>, StoreError> {
        let failed = failed("list configurations");
        let select = format!("SELECT {COLUMNS}");
        let rows = self.page(&select, which(filter), "created_at, thing", page);
        let Listing { items, total } = rows.await.map_err(&failed)?;
        let items: Result<_, _> = items.iter().map(config).collect();
        Ok(Listing {
            items: items.map_err(&failed)?,
            total,
        })
    }

    async fn record_events(&self, events: Vec<Event>) {
        self.announce(events).await;
    }

    async fn heard_last(&self, source: &str) -> Result<Option<String>, StoreError> {
        rollcall_domain::ports::Cursors::cursor(self, source).await
    }

    async fn hear(&self, heard: &Heard) -> Result<bool, StoreError> {
        let failed = failed("take over what things say");
        let mut transaction = self.begin_alone().await.map_err(&failed)?;
        if !advance(&mut transaction, heard).await.map_err(&failed)? {
            return Ok(false);
        }
        let events = take_over(&mut transaction, heard).await.map_err(&failed)?;
        self.commit(transaction, events).await.map_err(&failed)?;
        Ok(true)
    }

    async fn set_aside(&self, page: Page) -> Result<Listing<SetAside>, StoreError> {
        aside::list(self, page).await
    }

    async fn set_aside_as(&self, id: &str) -> Result<Vec<SetAside>, StoreError> {
        aside::with_id(self, id).await
    }

    async fn take_up(&self, heard: &Heard) -> Result<bool, StoreError> {
        let failed = failed("take over what was set aside");
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        let taken = aside::take(&mut transaction, heard).await;
        if !taken.map_err(&failed)? {
            return Ok(false);
        }
        let events = take_over(&mut transaction, heard).await.map_err(&failed)?;
        self.commit(transaction, events).await.map_err(&failed)?;
        Ok(true)
    }
}

impl Database {
    /// A transaction beside which nothing is written here. What a configuration is hangs together over several tables,
    /// and on PostgreSQL a statement that has waited for one row sees the others as they were before it waited.
    async fn begin_alone(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        let mut transaction = self.writer.begin().await?;
        sqlx::query("UPDATE logs SET last = last WHERE stream = $1")
            .bind(Stream::Bootstrap.as_str())
            .execute(&mut *transaction)
            .await?;
        Ok(transaction)
    }

    async fn one(&self, read: Statement) -> Result<Option<KeptConfig>, sqlx::Error> {
        let Some(row) = read.query().fetch_optional(&self.readers).await? else {
            return Ok(None);
        };
        let mut config = config(&row)?;
        let channels = sqlx::query(
            "SELECT id, name, metadata, as_of FROM config_channels
             JOIN config_connections ON channel = id WHERE thing = $1 ORDER BY id",
        )
        .bind(config.thing.as_bytes().as_slice())
        .fetch_all(&self.readers)
        .await?;
        let copy = |row: &AnyRow| {
            Ok::<_, sqlx::Error>(ChannelCopy {
                id: ChannelId::from_bytes(id(row, 0)?),
                name: row.try_get(1)?,
                metadata: from_json(row, 2)?,
                as_of: moment(row, 3)?,
            })
        };
        config.channels = channels.iter().map(copy).collect::<Result<_, _>>()?;
        Ok(Some(config))
    }
}

fn select() -> Statement {
    Statement::new(format!("SELECT {COLUMNS} FROM configs"))
}

fn config(row: &AnyRow) -> Result<KeptConfig, sqlx::Error> {
    let external_key = kept_key(row, 3)?;
    let loan: Option<Vec<u8>> = row.try_get(15)?;
    let state = State::from_number(row.try_get(12)?);
    Ok(KeptConfig {
        thing: ThingId::from_bytes(id(row, 0)?),
        owner: UserId::from_bytes(id(row, 1)?),
        external_id: row.try_get(2)?,
        external_key: external_key.ok_or(sqlx::Error::RowNotFound)?,
        thing_key: kept_key(row, 5)?,
        name: row.try_get(7)?,
        content: SealedKey::from_bytes(row.try_get(8)?),
        certificates: KeptCertificates {
            client_cert: row.try_get(9)?,
            client_key: SealedKey::from_bytes(row.try_get(10)?),
            ca_cert: row.try_get(11)?,
        },
        state: state.map_err(|error| sqlx::Error::Decode(error.into()))?,
        created_at: moment(row, 13)?,
        revision: number(row, 14)?,
        loan: loan.map(SealedKey::from_bytes),
        channels: Vec::new(),
    })
}

/// A hash, and behind it what is sealed.
fn kept_key(row: &AnyRow, column: usize) -> Result<Option<KeptKey>, sqlx::Error> {
    let is_kept: Option<&[u8]> = row.try_get(column)?;
    let sealed: Option<Vec<u8>> = row.try_get(column + 1)?;
    if is_kept.is_none() {
        return Ok(None);
    }
    Ok(Some(KeptKey {
        hash: hash(row, column)?,
        sealed: sealed.map(SealedKey::from_bytes),
    }))
}

fn key_columns(key: Option<&KeptKey>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let hash = key.map(|key| key.hash.as_bytes().to_vec());
    (hash, sealed_column(key.and_then(|key| key.sealed.as_ref())))
}

fn sealed_column(sealed: Option<&SealedKey>) -> Option<Vec<u8>> {
    sealed.map(|sealed| sealed.as_bytes().to_vec())
}

fn which(filter: &KeptFilter) -> Statement {
    let mut which = Statement::new(" FROM configs WHERE 1 = 1");
    if let Some(owner) = &filter.owner {
        which.push(" AND owner = ").bind(owner.as_bytes());
    }
    if let Some(state) = filter.state {
        let state = i64::from(state.number());
        which.push(" AND state = ").bind(state);
    }
    if let Some(external_id) = &filter.external_id {
        which.push(" AND external_id = ").bind(&**external_id);
    }
    if let Some(thing) = &filter.thing {
        which.push(" AND thing = ").bind(thing.as_bytes());
    }
    if let Some(hash) = &filter.thing_key {
        let hash = hash.as_bytes().to_vec();
        which.push(" AND thing_key_hash = ").bind(hash);
    }
    if let Some(name) = &filter.name {
        let mut pattern = "%".to_owned();
        for sign in name.chars() {
            if matches!(sign, '%' | '_' | '!') {
                pattern.push('!');
            }
            pattern.push(sign);
        }
        pattern.push('%');
        which.push(" AND small_name LIKE ").bind(&*pattern);
        which.push(" ESCAPE '!'");
    }
    which
}

/// What a change sets in the row of the configuration itself.
fn write(update: &mut Statement, change: &Change) {
    match change {
        Change::Content { name, content } => {
            update.push(", name = ").bind(&**name);
            let small = name.to_lowercase();
            update.push(", small_name = ").bind(&*small);
            let content = content.as_bytes().to_vec();
            update.push(", content = ").bind(content);
        }
        Change::Certificates(certificates) => {
            let client_cert = &*certificates.client_cert;
            update.push(", client_cert = ").bind(client_cert);
            let client_key = certificates.client_key.as_bytes().to_vec();
            update.push(", client_key = ").bind(client_key);
            let ca_cert = &*certificates.ca_cert;
            update.push(", ca_cert = ").bind(ca_cert);
        }
        Change::State { state, .. } => {
            update.push(", state = ").bind(i64::from(state.number()));
        }
        Change::ThingKey(key) => {
            let (hash, sealed) = key_columns(key.as_ref());
            set(update, "thing_key_hash", hash);
            set(update, "thing_key", sealed);
        }
        Change::Loan(loan) => set(update, "loan", sealed_column(loan.as_ref())),
        Change::Owner(owner) => {
            update.push(", owner = ").bind(owner.as_bytes());
        }
        Change::Channels { .. } | Change::Remove => {}
    }
}

fn set(update: &mut Statement, column: &str, value: Option<Vec<u8>>) {
    update.push(", ").push(column).push(" = ");
    match value {
        Some(value) => update.bind(value),
        None => update.push("NULL"),
    };
}

/// What a change does to the channels of a configuration, and to the configuration as a whole. Returns what is to be
/// announced of copies.
async fn rewire(
    connection: &mut AnyConnection,
    thing: ThingId,
    change: &Change,
) -> Result<Vec<Event>, sqlx::Error> {
    let mut told = Vec::new();
    match change {
        Change::Channels { channels, since } => {
            let had = connected(connection, thing).await?;
            for gone in had
                .iter()
                .filter(|id| channels.iter().all(|it| it.id != **id))
            {
                disconnect(connection, thing, *gone).await?;
                forget_orphan(connection, *gone).await?;
            }
            for copy in channels {
                if connect(connection, thing, copy, *since).await? {
                    told.push(copy.told());
                }
            }
        }
        Change::State {
            state: State::Active,
            since,
        } => {
            sqlx::query("UPDATE config_connections SET since = $1 WHERE thing = $2")
                .bind(since.0.cast_signed())
                .bind(thing.as_bytes().as_slice())
                .execute(connection)
                .await?;
        }
        Change::Remove => remove(connection, thing).await?,
        Change::State {
            state: State::Inactive,
            ..
        }
        | Change::Content { .. }
        | Change::Certificates(_)
        | Change::ThingKey(_)
        | Change::Loan(_)
        | Change::Owner(_) => {}
    }
    Ok(told)
}

async fn connected(
    connection: &mut AnyConnection,
    thing: ThingId,
) -> Result<Vec<ChannelId>, sqlx::Error> {
    let rows = sqlx::query("SELECT channel FROM config_connections WHERE thing = $1")
        .bind(thing.as_bytes().as_slice())
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| id(row, 0).map(ChannelId::from_bytes))
        .collect()
}

/// Puts a copy in the place of an older one. `false` if there is none.
async fn refresh(connection: &mut AnyConnection, copy: &ChannelCopy) -> Result<bool, sqlx::Error> {
    let updated = sqlx::query(
        "UPDATE config_channels SET name = $1, metadata = $2, as_of = $3
         WHERE id = $4 AND as_of < $3",
    )
    .bind(copy.name.as_str())
    .bind(json(&copy.metadata))
    .bind(copy.as_of.0.cast_signed())
    .bind(copy.id.as_bytes().as_slice())
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() > 0)
}

/// Keeps the copy of a channel, unless a later one is there, and that the configuration has it, unless it has.
/// Returns whether it has replaced an older copy.
async fn connect(
    connection: &mut AnyConnection,
    thing: ThingId,
    copy: &ChannelCopy,
    since: Timestamp,
) -> Result<bool, sqlx::Error> {
    let refreshed = refresh(connection, copy).await?;
    sqlx::query(
        "INSERT INTO config_channels (id, name, metadata, as_of) VALUES ($1, $2, $3, $4)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(copy.id.as_bytes().as_slice())
    .bind(copy.name.as_str())
    .bind(json(&copy.metadata))
    .bind(copy.as_of.0.cast_signed())
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO config_connections (thing, channel, since) VALUES ($1, $2, $3)
         ON CONFLICT (thing, channel) DO NOTHING",
    )
    .bind(thing.as_bytes().as_slice())
    .bind(copy.id.as_bytes().as_slice())
    .bind(since.0.cast_signed())
    .execute(connection)
    .await?;
    Ok(refreshed)
}

async fn disconnect(
    connection: &mut AnyConnection,
    thing: ThingId,
    channel: ChannelId,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM config_connections WHERE thing = $1 AND channel = $2")
        .bind(thing.as_bytes().as_slice())
        .bind(channel.as_bytes().as_slice())
        .execute(connection)
        .await?;
    Ok(())
}

/// Forgets the copy of a channel that no configuration has any longer.
async fn forget_orphan(
    connection: &mut AnyConnection,
    channel: ChannelId,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM config_channels WHERE id = $1
         AND NOT EXISTS (SELECT 1 FROM config_connections WHERE channel = $1)",
    )
    .bind(channel.as_bytes().as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

async fn remove(connection: &mut AnyConnection, thing: ThingId) -> Result<(), sqlx::Error> {
    let had = connected(connection, thing).await?;
    // Its connections go with it.
    sqlx::query("DELETE FROM configs WHERE thing = $1")
        .bind(thing.as_bytes().as_slice())
        .execute(&mut *connection)
        .await?;
    for channel in had {
        forget_orphan(connection, channel).await?;
    }
    Ok(())
}

/// Moves the cursor of a source. `false` if it is not where it should be.
async fn advance(connection: &mut AnyConnection, heard: &Heard) -> Result<bool, sqlx::Error> {
    let moved = match &heard.after {
        Some(after) => sqlx::query("UPDATE cursors SET id = $1 WHERE stream = $2 AND id = $3")
            .bind(heard.id.as_str())
            .bind(heard.source.as_str())
            .bind(after.as_str()),
        None => sqlx::query(
            "INSERT INTO cursors (id, stream) VALUES ($1, $2) ON CONFLICT (stream) DO NOTHING",
        )
        .bind(heard.id.as_str())
        .bind(heard.source.as_str()),
    };
    let moved = moved.execute(connection).await?;
    Ok(moved.rows_affected() > 0)
}

/// Makes the effect of an entry, and returns what is to be announced of it.
async fn take_over(
    connection: &mut AnyConnection,
    heard: &Heard,
) -> Result<Vec<Event>, sqlx::Error> {
    let changed = apply(connection, heard).await?;
    Ok(changed.map_or_else(Vec::new, |configs| heard.effect.told(&configs)))
}

/// `None` if the effect of an entry changes nothing; otherwise of which configurations a channel is gone. What is
/// younger than the entry stays as it is.
async fn apply(
    connection: &mut AnyConnection,
    heard: &Heard,
) -> Result<Option<Vec<ThingId>>, sqlx::Error> {
    match &heard.effect {
        Effect::Nothing => Ok(None),
        Effect::RemoveConfig { thing, at } => {
            let older = sqlx::query("SELECT 1 FROM configs WHERE thing = $1 AND created_at <= $2")
                .bind(thing.as_bytes().as_slice())
                .bind(at.0.cast_signed())
                .fetch_optional(&mut *connection)
                .await?;
            if older.is_some() {
                remove(connection, *thing).await?;
            }
            Ok(older.map(|_| Vec::new()))
        }
        Effect::RemoveChannel { channel, at } => remove_channel(connection, *channel, *at).await,
        Effect::UpdateChannel(copy) => Ok(refresh(connection, copy).await?.then(Vec::new)),
        Effect::Deactivate { thing, channel, at } => {
            let updated = sqlx::query(
                "UPDATE configs SET state = 0, revision = revision + 1
                 WHERE thing = $1 AND state = 1 AND EXISTS (SELECT 1 FROM config_connections
                 WHERE config_connections.thing = configs.thing AND channel = $2 AND since <= $3)",
            )
            .bind(thing.as_bytes().as_slice())
            .bind(channel.as_bytes().as_slice())
            .bind(at.0.cast_signed())
            .execute(connection)
            .await?;
            Ok((updated.rows_affected() > 0).then(Vec::new))
        }
        Effect::SetAside { reason, fields } => {
            aside::keep(connection, heard, reason, fields).await?;
            Ok(None)
        }
    }
}

async fn remove_channel(
    connection: &mut AnyConnection,
    channel: ChannelId,
    at: Timestamp,
) -> Result<Option<Vec<ThingId>>, sqlx::Error> {
    let rows = sqlx::query(
        "DELETE FROM config_connections WHERE channel = $1 AND since <= $2 RETURNING thing",
    )
    .bind(channel.as_bytes().as_slice())
    .bind(at.0.cast_signed())
    .fetch_all(&mut *connection)
    .await?;
    let mut configs = Vec::with_capacity(rows.len());
    for row in &rows {
        let config = ThingId::from_bytes(id(row, 0)?);
        sqlx::query("UPDATE configs SET revision = revision + 1 WHERE thing = $1")
            .bind(config.as_bytes().as_slice())
            .execute(&mut *connection)
            .await?;
        configs.push(config);
    }
    forget_orphan(connection, channel).await?;
    Ok((!configs.is_empty()).then_some(configs))
}
