//! `rollcall presence --watch`: who is online, then who comes and goes, without gap or duplicate.

use std::collections::BTreeMap;

use rollcall_domain::attendance::{Attendee, Happened, News, Register, Watching};
use rollcall_domain::identity::Timestamp;
use rollcall_grpc::api::{self, read_events_request::Since};
use rollcall_grpc::client::Client;
use serde_json::{Value, json};

use super::output::Output;

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

    /// Follows all instances by what a server says.
    pub(super) async fn follow_all(
        mut self,
        mut told: rollcall_grpc::client::Watch,
        page: &api::Page,
    ) -> anyhow::Result<()> {
        let mut register = Register::default();
        while let Some(news) = told.next().await? {
            match news {
                api::watch_response::News::Roll(part) => {
                    let more = part.more;
                    add_part(&mut register, part);
                    if !more {
                        let whole = std::mem::take(&mut register);
                        self.begin(&whole, page)?;
                    }
                }
                api::watch_response::News::Changes(changes) => {
                    for api::Change { id, fields } in changes.events {
                        let fields = fields.iter();
                        let fields = fields.map(|it| (it.name.as_str(), it.value.as_str()));
                        self.change(&id, fields)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Follows all instances by the stream itself.
    pub(super) async fn follow_redis(
        mut self,
        mut watching: Watching,
        page: &api::Page,
    ) -> anyhow::Result<()> {
        loop {
            match watching.next().await {
                News::Register(register) => self.begin(&register, page)?,
                News::Events(events) => {
                    for Happened { id, fields } in events {
                        let fields = fields.iter().map(|(name, value)| (&**name, &**value));
                        self.change(&id, fields)?;
                    }
                }
            }
        }
    }

    /// Shows who is online, and counts on from there.
    fn begin(&mut self, register: &Register, page: &api::Page) -> std::io::Result<()> {
        self.online.clone_from(&register.instances);
        let all = &register.sessions;
        let place = |it: u64| usize::try_from(it).map_or(all.len(), |it| it.min(all.len()));
        let first = place(page.offset);
        let end = place(page.offset.saturating_add(page.limit));
        show(register, &all[first..end], all.len() as u64, self.output)
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

fn add_part(register: &mut Register, part: api::RollPart) {
    register.at = part.at;
    register
        .sessions
        .extend(part.sessions.into_iter().map(attendee));
    let counts = part.instances.into_iter();
    register
        .instances
        .extend(counts.map(|it| (it.instance, it.sessions)));
}

/// A session as gRPC tells of it.
pub(super) fn attendee(it: api::Attendee) -> Attendee {
    Attendee {
        session_id: it.session_id,
        thing_id: it.thing_id,
        instance: it.instance,
        client_id: it.client_id,
        protocol: it.protocol,
        peer: it.peer,
        since: Timestamp(it.since),
    }
}

/// A session, for machines.
pub(super) fn session(it: &Attendee) -> Value {
    json!({
        "session_id": it.session_id,
        "thing_id": it.thing_id,
        "client_id": it.client_id,
        "protocol": it.protocol,
        "peer": it.peer,
        "since": it.since.rfc3339(),
        "occurred_at": it.since.to_string(),
        "instance": it.instance,
    })
}

/// Shows one page of those who are online, or of those who were asked for.
pub(super) fn show(
    register: &Register,
    page: &[Attendee],
    total: u64,
    output: Output,
) -> std::io::Result<()> {
    let value = json!({
        "at": register.at,
        "total": total,
        "instances": register.instances,
        "sessions": page.iter().map(session).collect::<Vec<_>>(),
    });
    table(&value, page, output)?;
    let all: u64 = register.instances.values().sum();
    if output.json {
        return Ok(());
    }
    if total != all {
        return output.line(&format!("{total} of {all} online{}", rest(page, total)));
    }
    for (instance, count) in &register.instances {
        let instance = instance.escape_debug();
        output.line(&format!("{count} on {instance}"))?;
    }
    output.line(&format!("{total} online{}", rest(page, total)))
}

/// How to see those who are not on the page.
pub(super) fn rest(page: &[Attendee], total: u64) -> String {
    match page.len() as u64 {
        shown if shown < total => format!(", {shown} of them shown (--limit, --offset)"),
        _ => String::new(),
    }
}

/// Shows sessions as a table; as JSON `value` instead.
pub(super) fn table(value: &Value, page: &[Attendee], output: Output) -> std::io::Result<()> {
    let rows: Vec<_> = page
        .iter()
        .map(|it| {
            let cells = [
                it.session_id.clone(),
                it.thing_id.clone(),
                it.client_id.clone(),
                it.since.rfc3339(),
                it.instance.clone(),
                it.protocol.clone(),
                it.peer.clone(),
            ];
            // A client chooses its id: it may not write on the terminal.
            cells.map(|cell| cell.escape_debug().to_string())
        })
        .collect();
    let headings = [
        "SESSION", "THING", "CLIENT", "SINCE", "INSTANCE", "PROTOCOL", "PEER",
    ];
    output.table(value, headings, &rows)
}
