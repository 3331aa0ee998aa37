//! Who is online, and who is not to be any longer.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use rollcall_domain::identity::Timestamp;
use rollcall_grpc::api::{self, kick_request::Whom};
use rollcall_grpc::client::Client;
use rollcall_redis::repair::{self, Repaired};
use rollcall_redis::seen::{Seen, seen};
use rollcall_redis::{Url, roll};
use serde_json::json;

use super::Session;
use super::check::Place;
use super::output::Output;
use super::things::Page;
use super::watch::{self, Watch};
use crate::config::Config;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Presence {
    #[command(flatten)]
    page: Page,
    /// Go on with who comes and goes
    #[arg(long, short)]
    watch: bool,
    /// Show the roll of all instances on this Redis, rather than of the server
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    #[command(subcommand)]
    command: Option<PresenceCommand>,
}

#[derive(Subcommand)]
enum PresenceCommand {
    /// Make the roll in Redis anew: instances that are alive from their journals, others from the stream
    Rebuild(Place),
    /// Where a thing is online, on whatever instance, and the last that was heard of it
    Seen {
        /// Its id
        thing: String,
        #[command(flatten)]
        place: Place,
    },
}

impl Presence {
    pub(super) async fn run(self, session: &Session<'_>, output: Output) -> anyhow::Result<()> {
        match self.command {
            Some(PresenceCommand::Rebuild(place)) => rebuild(place, session.config, output).await,
            Some(PresenceCommand::Seen { thing, place }) => {
                show_seen(&thing, place, session.config, output).await
            }
            None => match &self.redis {
                Some(url) => {
                    self.show_redis(&Url::new(url), session.config, output)
                        .await
                }
                None => self.list(&session.connect().await?, output).await,
            },
        }
    }

    async fn show_redis(&self, url: &Url, config: &Config, output: Output) -> anyhow::Result<()> {
        let prefix = &config.redis.prefix;
        let view = roll::view(url, prefix).await?;
        let api::Page { offset, limit } = self.page.message();
        let online = watch::show(&view, offset, limit, output)?;
        match self.watch {
            true => {
                let watch = Watch::new(online, output);
                watch.follow_redis(url, prefix, view.last).await
            }
            false => Ok(()),
        }
    }

    async fn list(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let listing = client.online(self.page.message()).await?;
        let session = |it: &api::Online| {
            json!({
                "session_id": it.session_id,
                "thing_id": it.thing_id,
                "client_id": it.client_id,
                "protocol": it.protocol,
                "peer": it.peer,
                "since": Timestamp(it.since).rfc3339(),
                "occurred_at": it.since.to_string(),
                "instance": listing.instance,
            })
        };
        let value = json!({
            "instance": listing.instance,
            "total": listing.total,
            "position": listing.position,
            "sessions": listing.sessions.iter().map(session).collect::<Vec<_>>(),
        });
        let rows: Vec<_> = listing
            .sessions
            .iter()
            .map(|it| {
                let since = Timestamp(it.since).rfc3339();
                let instance = listing.instance.clone();
                // A client chooses its id: it may not write on the terminal.
                let client = it.client_id.escape_debug().to_string();
                [
                    it.session_id.clone(),
                    it.thing_id.clone(),
                    client,
                    since,
                    instance,
                    it.protocol.clone(),
                    it.peer.clone(),
                ]
            })
            .collect();
        let headings = [
            "SESSION", "THING", "CLIENT", "SINCE", "INSTANCE", "PROTOCOL", "PEER",
        ];
        output.table(&value, headings, &rows)?;
        if !output.json {
            output.line(&format!("{} online", listing.total))?;
        }
        if self.watch {
            let online = [(listing.instance.clone(), listing.total)].into();
            let watch = Watch::new(online, output);
            watch.follow_server(client, listing.position).await?;
        }
        Ok(())
    }
}

async fn rebuild(place: Place, config: &Config, output: Output) -> anyhow::Result<()> {
    let (url, prefix) = place.find(config)?;
    let Repaired { told, made, raced } = repair::rebuild(&url, &prefix).await?;
    let made_by_name = made
        .iter()
        .map(|(instance, sessions)| (instance.clone(), json!(sessions)));
    let value = json!({
        "told": told,
        "made": made_by_name.collect::<serde_json::Map<_, _>>(),
        "raced": raced,
    });
    let told = told
        .iter()
        .map(|it| format!("{it}: alive, makes its part anew itself"));
    let made = made.iter().map(|(it, sessions)| {
        format!("{it}: gone, {sessions} sessions open by the stream, to be closed by others")
    });
    let changed = raced
        .iter()
        .map(|it| format!("{it}: changed meanwhile, try again"));
    let lines: Vec<String> = told.chain(made).chain(changed).collect();
    output.say(&value, &lines.join("\n"))?;
    anyhow::ensure!(raced.is_empty(), "not all of the roll could be made anew");
    Ok(())
}

async fn show_seen(
    thing: &str,
    place: Place,
    config: &Config,
    output: Output,
) -> anyhow::Result<()> {
    let (url, prefix) = place.find(config)?;
    let Seen {
        sessions,
        last,
        is_partial,
    } = seen(&url, &prefix, thing).await?;
    let when = |at: &str| Timestamp(at.parse().unwrap_or(0)).rfc3339();
    let listed = sessions.iter().map(|(session, row)| {
        json!({
            "session_id": session,
            "instance": row.instance,
            "client_id": row.client_id,
            "peer": row.peer,
            "since": when(&row.since),
        })
    });
    let fields = last.iter().flat_map(|entry| &entry.fields);
    let fields: BTreeMap<&str, &str> = fields.map(|(name, value)| (&**name, &**value)).collect();
    let value = |name: &str| fields.get(name).copied().unwrap_or_default();
    let at = when(value("occurred_at"));
    let report = json!({
        "thing_id": thing,
        "online": sessions.len(),
        "sessions": listed.collect::<Vec<_>>(),
        "last_seen": last.as_ref().map(|_| &at),
        "last_event": last.as_ref().map(|_| &fields),
        "partial": is_partial,
    });
    let mut lines: Vec<String> = sessions
        .iter()
        .map(|(session, row)| {
            let (since, instance) = (when(&row.since), &row.instance);
            format!("online since {since} on {instance}, session {session}")
        })
        .collect();
    lines.push(match (&last, is_partial) {
        (Some(_), _) => {
            let (kind, instance) = (value("event_type"), value("instance"));
            format!("last {kind} at {at} on {instance}")
        }
        (None, true) => "not in what is left of the stream".to_owned(),
        (None, false) => "never seen".to_owned(),
    });
    // Others may write there what no terminal should see.
    let lines = lines.iter().map(|line| line.escape_debug().to_string());
    output.say(&report, &lines.collect::<Vec<_>>().join("\n"))?;
    Ok(())
}

#[derive(Args)]
pub(super) struct Kick {
    /// Id of a session, as `rollcall presence` shows it, or of a thing
    id: String,
    /// Told to the client, if it speaks MQTT 5
    #[arg(long, default_value = "")]
    reason: String,
    /// Discard what is kept for it to come back to: subscriptions and messages
    #[arg(long)]
    forget: bool,
}

impl Kick {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let Self { id, reason, forget } = self;
        let whom = Some(Whom::AnyId(id));
        let request = api::KickRequest {
            whom,
            reason,
            forget,
        };
        let api::KickResponse { ended, forgotten } = client.kick(request).await?;
        let value = json!({ "ended": ended, "forgotten": forgotten });
        let mut text = format!("{ended} ended");
        if forget {
            text.push_str(&format!(", {forgotten} forgotten"));
        }
        Ok(output.say(&value, &text)?)
    }
}
