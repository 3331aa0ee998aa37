//! When a thing was seen last: its sessions on the roll, and the last of its events.

use redis::Cmd;
use rollcall_domain::event::Fields;

use crate::connect::Client;
use crate::roll::{Keys, Row, TIMEOUT, ViewError, view};
use crate::stream::{RawEntries, StreamEntry};
use crate::{Url, stream};

/// Entries of one reply.
const PAGE: usize = 1000;

/// What a Redis knows of a thing.
#[derive(Debug)]
pub struct Seen {
    /// Where it is online, on whatever instance.
    pub sessions: Vec<(String, Row)>,
    /// The last event of it that the stream has.
    pub last: Option<StreamEntry>,
    /// The stream has lost its beginning: there may have been one.
    pub is_partial: bool,
}

/// Looks for a thing on the roll and, from the end on, in the stream: the longer ago, the longer it takes.
///
/// # Errors
/// The address makes no sense, Redis does not answer, or has no such stream.
pub async fn seen(url: &Url, prefix: &str, thing: &str) -> Result<Seen, ViewError> {
    let failed = |error| ViewError::Redis(url.clone(), error);
    let view = view(url, prefix).await?;
    let rows = view.parts.into_iter().flat_map(|part| part.rows);
    let sessions = rows.filter(|(_, row)| row.thing_id == thing).collect();
    let keys = Keys::new(prefix);
    let connection = Client::open(url)?;
    let connection = connection.connect(&keys.stream, TIMEOUT, Some(TIMEOUT));
    let mut redis = connection.await.map_err(failed)?;
    let mut end = view.last;
    let is_its = |fields: &Fields| {
        let mut fields = fields.iter();
        fields.any(|(name, value)| name == "thing_id" && value == thing)
    };
    let mut last = None;
    while last.is_none() {
        let mut read = Cmd::new();
        read.arg("XREVRANGE").arg(&keys.stream).arg(&end).arg("-");
        read.arg("COUNT").arg(PAGE);
        let entries: RawEntries = read.query_async(&mut redis).await.map_err(failed)?;
        let Some((oldest, _)) = entries.last() else {
            break;
        };
        // From behind that one on.
        end = format!("({oldest}");
        last = stream::entries(entries).find(|entry| is_its(&entry.fields));
    }
    Ok(Seen {
        sessions,
        last,
        is_partial: view.is_partial,
    })
}
