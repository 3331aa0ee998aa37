//! What an earlier run left, read at the start.

use std::collections::HashMap;
use std::error::Error;
use std::num::NonZeroU64;
use std::time::Duration;

use rollcall_domain::identity::{ThingId, Timestamp};
use rollcall_domain::sessions::{
    Delivery, KeptSession, Left, MessageNumber, Session, SessionNumber, Subscription, Will,
};
use rusqlite::{Connection, Row, params};

use super::rows::{read_message, read_protocol, time};

/// Rows between two words about how far it has come.
const PROGRESS: usize = 250_000;

type Failure = Box<dyn Error + Send + Sync>;

/// Tidies up, then reads everything. Sessions that were connected have left when this returns, and expired
/// messages that were not under way are gone.
pub(super) fn load(connection: &mut Connection) -> Result<Left, Failure> {
    let transaction = connection.transaction()?;
    tidy(&transaction, Timestamp::now())?;
    let mut rows = 0;
    let mut left = Left {
        sessions: sessions(&transaction, &mut rows)?,
        messages: all(
            &transaction,
            "SELECT number, packet, protocol, qos, retain, expires FROM messages ORDER BY number",
            &mut rows,
            |row| Ok((number(row, 0)?, read_message(row, 1)?)),
        )?,
        retained: all(
            &transaction,
            "SELECT topic, packet, protocol, qos, retain, expires FROM retained",
            &mut rows,
            |row| Ok((row.get(0)?, read_message(row, 1)?)),
        )?,
        next: 0,
    };
    let sessions = left.sessions.iter().map(|it| it.number.get());
    let messages = left.messages.iter().map(|it| it.0.get());
    left.next = sessions.chain(messages).max().unwrap_or(0) + 1;
    transaction.commit()?;
    Ok(left)
}

fn tidy(db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    // The connections of that run ended with it, now at the latest.
    db.execute(
        "UPDATE wills SET due = ?1 + MIN(delay, (SELECT expiry FROM sessions WHERE number = session))
         WHERE due IS NULL",
        [time(now)],
    )?;
    db.execute(
        "UPDATE sessions SET ends = CASE WHEN expiry > ?2 - ?1 THEN ?2 ELSE ?1 + expiry END
         WHERE ends IS NULL",
        params![time(now), i64::MAX],
    )?;
    db.execute(
        "DELETE FROM deliveries WHERE place IS NULL
         AND message IN (SELECT number FROM messages WHERE expires <= ?)",
        [time(now)],
    )?;
    // Their numbers are given out again, to other messages.
    db.execute(
        "DELETE FROM deliveries WHERE NOT EXISTS (SELECT 1 FROM messages WHERE number = message)",
        [],
    )?;
    db.execute(
        "DELETE FROM messages WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE message = number)",
        [],
    )?;
    db.execute("DELETE FROM retained WHERE expires <= ?", [time(now)])?;
    Ok(())
}

fn sessions(db: &Connection, rows: &mut usize) -> Result<Vec<KeptSession>, Failure> {
    let mut sessions = all(
        db,
        "SELECT number, thing, client_id, protocol, expiry, ends FROM sessions ORDER BY number",
        rows,
        session,
    )?;
    let places: HashMap<SessionNumber, usize> = sessions
        .iter()
        .enumerate()
        .map(|(place, it)| (it.number, place))
        .collect();
    let mut of = |session, change: &mut dyn FnMut(&mut KeptSession)| match places.get(&session) {
        Some(&place) => {
            change(&mut sessions[place]);
            Ok(())
        }
        None => Err(format!(
            "something is of session {session}, which is not there"
        )),
    };
    for (session, subscription) in all(
        db,
        "SELECT session, filter, options, identifier FROM subscriptions ORDER BY made",
        rows,
        |row| {
            let subscription = Subscription {
                filter: row.get(1)?,
                options: row.get(2)?,
                identifier: row.get(3)?,
            };
            Ok((number(row, 0)?, subscription))
        },
    )? {
        let mut subscription = Some(subscription);
        of(session, &mut |it| {
            it.subscriptions.extend(subscription.take())
        })?;
    }
    for (session, packet) in all(db, "SELECT session, packet FROM received", rows, |row| {
        Ok((number(row, 0)?, row.get(1)?))
    })? {
        of(session, &mut |it| it.received.push(packet))?;
    }
    for (session, delivery) in all(
        db,
        "SELECT session, message, qos, retain, properties, shared, place, released FROM deliveries
         ORDER BY place NULLS LAST, message",
        rows,
        |row| Ok((number(row, 0)?, delivery(row)?)),
    )? {
        let mut delivery = Some(delivery);
        of(session, &mut |it| it.deliveries.extend(delivery.take()))?;
    }
    for (session, will, due) in all(
        db,
        "SELECT session, packet, protocol, qos, retain, NULL, delay, due FROM wills",
        rows,
        |row| {
            let will = Will {
                message: read_message(row, 1)?,
                delay: Duration::from_nanos(row.get::<_, i64>(6)?.cast_unsigned()),
            };
            let due = Timestamp(row.get::<_, i64>(7)?.cast_unsigned());
            Ok((number(row, 0)?, will, due))
        },
    )? {
        let mut will = Some((will, due));
        of(session, &mut |it| it.will = will.take())?;
    }
    Ok(sessions)
}

fn session(row: &Row<'_>) -> rusqlite::Result<KeptSession> {
    let thing: Option<[u8; 16]> = row.get(1)?;
    Ok(KeptSession {
        number: number(row, 0)?,
        session: Session {
            thing: thing.map(ThingId::from_bytes),
            client_id: row.get(2)?,
            protocol: read_protocol(row, 3)?,
            expiry: Duration::from_nanos(row.get::<_, i64>(4)?.cast_unsigned()),
        },
        ends: Timestamp(row.get::<_, i64>(5)?.cast_unsigned()),
        subscriptions: Vec::new(),
        deliveries: Vec::new(),
        received: Vec::new(),
        will: None,
    })
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let place: Option<i64> = row.get(6)?;
    let released: Option<i64> = row.get(7)?;
    Ok(Delivery {
        message: number(row, 1)?,
        qos: row.get(2)?,
        retain: row.get(3)?,
        properties: row.get_ref(4)?.as_blob()?.into(),
        group: row.get(5)?,
        place: place.map(i64::cast_unsigned),
        released: released.and_then(|it| NonZeroU64::new(it.cast_unsigned())),
    })
}

fn number(row: &Row<'_>, at: usize) -> rusqlite::Result<MessageNumber> {
    let number: i64 = row.get(at)?;
    MessageNumber::new(number.cast_unsigned())
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(at, number))
}

/// All rows of a query; `count` goes on over several of them.
fn all<T>(
    db: &Connection,
    sql: &str,
    count: &mut usize,
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Failure> {
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
        *count += 1;
        if count.is_multiple_of(PROGRESS) {
            tracing::info!(rows = *count, "reading sessions and messages");
        }
    }
    Ok(all)
}
