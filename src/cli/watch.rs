//! `rollcall presence --watch`: who is online, then who comes and goes, without gap or duplicate.

use std::collections::BTreeMap;
use std::time::Duration;

use rollcall_domain::identity::Timestamp;
use rollcall_grpc::api::read_events_request::Since;
use rollcall_grpc::client::Client;
use rollcall_redis::Url;
use rollcall_redis::roll;
use rollcall_redis::stream::Reader;
use serde_json::json;

use super::output::Output;

/// After a Redis that is followed has gone away.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How many are online, by instance.
pub(super) struct Watch {
    online: BTreeMap<String, u64>,
    output: Output,
}

impl Watch {
    pub(super) const fn new(online: BTreeMap<String, u64>, output: Output) -> Self {
        Self { online, output }
    }

    /// Follows the journal of a server from behind `position` on.
    pub(super) async fn follow_server(
        mut self,
        client: &Client,
        position: u64,
    ) -> anyhow::Result<()> {
        let since = Since::Position(position);
        let mut events = client.events("mqtt".to_owned(), since, true).await?;
        while let Some(page) = events.next().await? {
            for event in page {
                let fields = event.fields.iter();
                let fields = fields.map(|field| (field.name.as_str(), field.value.as_str()));
                self.change(&event.position.to_string(), fields)?;
            }
        }
        Ok(())
    }

    /// Follows a stream from behind the entry `last` on.
    pub(super) async fn follow_redis(
        mut self,
        url: &Url,
        prefix: &str,
        last: String,
    ) -> anyhow::Result<()> {
        let mut reader = Reader::after(url, format!("{prefix}.mqtt"), last)?;
        loop {
            let entries = match reader.follow().await {
                Ok(entries) => entries,
                Err(error) => {
                    eprintln!("rollcall: {error}; trying again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            };
            for entry in entries {
                let fields = entry.fields.iter();
                self.change(&entry.id, fields.map(|(name, value)| (&**name, &**value)))?;
            }
        }
    }

    fn change<'a>(
        &mut self,
        id: &str,
        fields: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> std::io::Result<()> {
        let fields: BTreeMap<&str, &str> = fields.collect();
        let value = |name: &str| fields.get(name).copied().unwrap_or_default();
        let (kind, instance) = (value("event_type"), value("instance"));
        let count = self.online.entry(instance.to_owned()).or_insert(0);
        match kind {
            "connect" => *count += 1,
            // Below nobody is whoever was here before an operator deleted the roll.
            "disconnect" => *count = count.saturating_sub(1),
            _ => return Ok(()),
        }
        let here = *count;
        let online: u64 = self.online.values().sum();
        let at = Timestamp(value("occurred_at").parse().unwrap_or(0)).rfc3339();
        let report = json!({
            "id": id,
            "fields": fields,
            "online": online,
            "online_on_instance": here,
        });
        let thing = value("thing_id");
        // Others may write there what no terminal should see.
        let line = format!("{at}  {kind:10}  {thing}  {instance}  {online} online");
        self.output.say(&report, &line.escape_debug().to_string())
    }
}

/// Shows who is online by the roll in Redis; at most `limit` of them, but counts all.
pub(super) fn show(
    view: &roll::View,
    offset: u64,
    limit: u64,
    output: Output,
) -> std::io::Result<BTreeMap<String, u64>> {
    let counts = view.parts.iter();
    let counts = counts.map(|part| (part.instance.clone(), part.rows.len() as u64));
    let counts: BTreeMap<String, u64> = counts.collect();
    let total: u64 = counts.values().sum();
    let mut all: Vec<_> = view.parts.iter().flat_map(|part| &part.rows).collect();
    all.sort_unstable_by(|(a, one), (b, other)| (&one.since, a).cmp(&(&other.since, b)));
    let page = all
        .into_iter()
        .skip(usize::try_from(offset).unwrap_or(usize::MAX));
    let page: Vec<_> = page
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .collect();
    let since = |row: &roll::Row| Timestamp(row.since.parse().unwrap_or(0)).rfc3339();
    let sessions = page.iter().map(|(session, row)| {
        json!({
            "session_id": session,
            "thing_id": row.thing_id,
            "client_id": row.client_id,
            "protocol": row.protocol,
            "peer": row.peer,
            "since": since(row),
            "occurred_at": row.since,
            "instance": row.instance,
        })
    });
    let value = json!({
        "at": view.last,
        "total": total,
        "instances": counts,
        "sessions": sessions.collect::<Vec<_>>(),
    });
    let rows: Vec<_> = page
        .iter()
        .map(|(session, row)| {
            let cells = [
                session.clone(),
                row.thing_id.clone(),
                row.client_id.clone(),
                since(row),
                row.instance.clone(),
                row.protocol.clone(),
                row.peer.clone(),
            ];
            // A client chooses its id: it may not write on the terminal.
            cells.map(|cell| cell.escape_debug().to_string())
        })
        .collect();
    let headings = [
        "SESSION", "THING", "CLIENT", "SINCE", "INSTANCE", "PROTOCOL", "PEER",
    ];
    output.table(&value, headings, &rows)?;
    if !output.json {
        for (instance, count) in &counts {
            output.line(&format!("{count} on {instance}"))?;
        }
        output.line(&format!("{total} online"))?;
    }
    Ok(counts)
}
