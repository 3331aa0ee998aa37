//! How changes become rows, and back.

use std::num::NonZeroU64;
use std::sync::Arc;

use rollcall_domain::identity::{ThingId, Timestamp};
use rollcall_domain::presence::Protocol;
use rollcall_domain::sessions::{
    Change, Delivery, Message, MessageNumber, Session, SessionNumber, Subscription, Will,
};
use rusqlite::{Connection, Result, params};

/// What a change takes in memory, about.
pub(super) fn cost(change: &Change) -> usize {
    let content = match change {
        Change::Connected(_, session, will) => {
            session.client_id.len() + will.as_ref().map_or(0, |will| will.message.packet.len())
        }
        Change::Subscribed(_, subscription) => subscription.filter.len(),
        Change::Unsubscribed(_, filter) => filter.len(),
        Change::Queued(_, delivery) => delivery.properties.len(),
        Change::Message(_, message) => message.packet.len(),
        Change::Retained(topic, message) => {
            topic.len() + message.as_ref().map_or(0, |message| message.packet.len())
        }
        Change::Left { .. }
        | Change::WillGone(_)
        | Change::Ended(_)
        | Change::Sent(..)
        | Change::Released(..)
        | Change::Done(..)
        | Change::Received(..)
        | Change::Unreceived(..) => 0,
    };
    content + size_of::<Change>()
}

pub(super) const fn protocol_number(protocol: Protocol) -> i64 {
    match protocol {
        Protocol::Mqtt31 => 3,
        Protocol::Mqtt311 => 4,
        Protocol::Mqtt5 => 5,
    }
}

pub(super) fn protocol(number: i64) -> Option<Protocol> {
    match number {
        3 => Some(Protocol::Mqtt31),
        4 => Some(Protocol::Mqtt311),
        5 => Some(Protocol::Mqtt5),
        _ => None,
    }
}

pub(super) fn time(time: Timestamp) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

pub(super) fn span(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

pub(super) fn connected(
    db: &Connection,
    number: SessionNumber,
    session: &Session,
    will: Option<&Will>,
) -> Result<()> {
    let thing = session.thing.as_ref().map(ThingId::as_bytes);
    db.prepare_cached(
        "INSERT INTO sessions (number, thing, client_id, protocol, expiry) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET protocol = excluded.protocol, expiry = excluded.expiry, ends = NULL",
    )?
    .execute(params![
        number.get().cast_signed(),
        thing.map(<[u8; 16]>::as_slice),
        session.client_id,
        protocol_number(session.protocol),
        span(session.expiry),
    ])?;
    will_gone(db, number)?;
    if let Some(Will { message, delay }) = will {
        db.prepare_cached(
            "INSERT INTO wills (session, packet, protocol, qos, retain, delay) VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            number.get().cast_signed(),
            &message.packet[..],
            protocol_number(message.protocol),
            message.qos,
            message.retain,
            span(*delay),
        ])?;
    }
    Ok(())
}

pub(super) fn left(
    db: &Connection,
    session: SessionNumber,
    ends: Timestamp,
    will: Option<Timestamp>,
) -> Result<()> {
    db.prepare_cached("UPDATE sessions SET ends = ? WHERE number = ?")?
        .execute(params![time(ends), session.get().cast_signed()])?;
    match will {
        None => will_gone(db, session),
        Some(due) => {
            db.prepare_cached("UPDATE wills SET due = ? WHERE session = ?")?
                .execute(params![time(due), session.get().cast_signed()])?;
            Ok(())
        }
    }
}

pub(super) fn will_gone(db: &Connection, session: SessionNumber) -> Result<()> {
    db.prepare_cached("DELETE FROM wills WHERE session = ?")?
        .execute([session.get().cast_signed()])?;
    Ok(())
}

/// Adds to `loose` the messages that may have had their last delivery.
pub(super) fn ended(
    db: &Connection,
    session: SessionNumber,
    loose: &mut Vec<MessageNumber>,
) -> Result<()> {
    let session = session.get().cast_signed();
    let mut statement = db.prepare_cached("SELECT message FROM deliveries WHERE session = ?")?;
    let mut rows = statement.query([session])?;
    while let Some(row) = rows.next()? {
        loose.extend(MessageNumber::new(row.get::<_, i64>(0)?.cast_unsigned()));
    }
    for table in [
        "DELETE FROM deliveries WHERE session = ?",
        "DELETE FROM received WHERE session = ?",
        "DELETE FROM subscriptions WHERE session = ?",
        "DELETE FROM wills WHERE session = ?",
        "DELETE FROM sessions WHERE number = ?",
    ] {
        db.prepare_cached(table)?.execute([session])?;
    }
    Ok(())
}

pub(super) fn subscribed(
    db: &Connection,
    session: SessionNumber,
    subscription: &Subscription,
) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO subscriptions (session, filter, options, identifier)
         SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM sessions WHERE number = ?1)
         ON CONFLICT DO UPDATE SET options = excluded.options, identifier = excluded.identifier",
    )?
    .execute(params![
        session.get().cast_signed(),
        subscription.filter,
        subscription.options,
        subscription.identifier,
    ])?;
    Ok(())
}

pub(super) fn unsubscribed(db: &Connection, session: SessionNumber, filter: &str) -> Result<()> {
    db.prepare_cached("DELETE FROM subscriptions WHERE session = ? AND filter = ?")?
        .execute(params![session.get().cast_signed(), filter])?;
    Ok(())
}

pub(super) fn message(db: &Connection, number: MessageNumber, message: &Message) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO messages (number, packet, protocol, qos, retain, expires) VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        number.get().cast_signed(),
        &message.packet[..],
        protocol_number(message.protocol),
        message.qos,
        message.retain,
        message.expires.map(time),
    ])?;
    Ok(())
}

/// Returns whether the session is there.
pub(super) fn queued(
    db: &Connection,
    session: SessionNumber,
    delivery: &Delivery,
    place: Option<u64>,
    released: Option<NonZeroU64>,
) -> Result<bool> {
    let inserted = db
        .prepare_cached(
            "INSERT OR REPLACE INTO deliveries (message, session, qos, retain, properties, shared, place, released)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE EXISTS (SELECT 1 FROM sessions WHERE number = ?2)",
        )?
        .execute(params![
            delivery.message.get().cast_signed(),
            session.get().cast_signed(),
            delivery.qos,
            delivery.retain,
            &delivery.properties[..],
            delivery.group,
            place.map(u64::cast_signed),
            released.map(|it| it.get().cast_signed()),
        ])?;
    Ok(inserted > 0)
}

pub(super) fn sent(
    db: &Connection,
    session: SessionNumber,
    message: MessageNumber,
    place: u64,
) -> Result<()> {
    db.prepare_cached("UPDATE deliveries SET place = ? WHERE message = ? AND session = ?")?
        .execute([place, message.get(), session.get()].map(u64::cast_signed))?;
    Ok(())
}

pub(super) fn released(
    db: &Connection,
    session: SessionNumber,
    message: MessageNumber,
    order: NonZeroU64,
) -> Result<()> {
    db.prepare_cached("UPDATE deliveries SET released = ? WHERE message = ? AND session = ?")?
        .execute([order, message, session].map(|it| it.get().cast_signed()))?;
    Ok(())
}

pub(super) fn done(db: &Connection, session: SessionNumber, message: MessageNumber) -> Result<()> {
    db.prepare_cached("DELETE FROM deliveries WHERE message = ? AND session = ?")?
        .execute([message.get(), session.get()].map(u64::cast_signed))?;
    Ok(())
}

/// Deletes a message that has no delivery left.
pub(super) fn sweep(db: &Connection, message: MessageNumber) -> Result<()> {
    db.prepare_cached(
        "DELETE FROM messages
         WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE message = ?1)",
    )?
    .execute([message.get().cast_signed()])?;
    Ok(())
}

pub(super) fn received(db: &Connection, session: SessionNumber, packet: u16) -> Result<()> {
    db.prepare_cached(
        "INSERT OR IGNORE INTO received (session, packet)
         SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM sessions WHERE number = ?1)",
    )?
    .execute(params![session.get().cast_signed(), packet])?;
    Ok(())
}

pub(super) fn unreceived(db: &Connection, session: SessionNumber, packet: u16) -> Result<()> {
    db.prepare_cached("DELETE FROM received WHERE session = ? AND packet = ?")?
        .execute(params![session.get().cast_signed(), packet])?;
    Ok(())
}

pub(super) fn retained(db: &Connection, topic: &str, message: Option<&Message>) -> Result<()> {
    let Some(message) = message else {
        db.prepare_cached("DELETE FROM retained WHERE topic = ?")?
            .execute([topic])?;
        return Ok(());
    };
    db.prepare_cached(
        "INSERT OR REPLACE INTO retained (topic, packet, protocol, qos, retain, expires)
         VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        topic,
        &message.packet[..],
        protocol_number(message.protocol),
        message.qos,
        message.retain,
        message.expires.map(time),
    ])?;
    Ok(())
}

/// The message in five columns from `at` on: packet, protocol, qos, retain, expires.
pub(super) fn read_message(row: &rusqlite::Row<'_>, at: usize) -> Result<Message> {
    let packet: Arc<[u8]> = row.get_ref(at)?.as_blob()?.into();
    let expires: Option<i64> = row.get(at + 4)?;
    Ok(Message {
        packet,
        protocol: read_protocol(row, at + 1)?,
        qos: row.get(at + 2)?,
        retain: row.get(at + 3)?,
        expires: expires.map(|at| Timestamp(at.cast_unsigned())),
    })
}

pub(super) fn read_protocol(row: &rusqlite::Row<'_>, at: usize) -> Result<Protocol> {
    let number = row.get(at)?;
    protocol(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(at, number))
}
