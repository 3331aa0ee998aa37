//! Who is online, and who is not to be any longer.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Args, Subcommand};
use rollcall_domain::attendance::{Attendee, LastSeen, Left, Overview, Register};
use rollcall_domain::identity::{ThingId, Timestamp};
use rollcall_grpc::api::{self, kick_request::Whom};
use rollcall_grpc::client::Client;
use rollcall_redis::Url;
use rollcall_redis::attendance::Shared;
use rollcall_redis::repair::{self, Repaired};
use serde_json::json;

use super::Session;
use super::check::Place;
use super::output::Output;
use super::page::Page;
use super::watch::{self, Watch, attendee};
use crate::config::Config;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Presence {
    #[command(flatten)]
    page: Page,
    /// Go on with who comes and goes
    #[arg(long, short)]
    watch: bool,
    /// Show all instances that share the server's stream, rather than the server alone
    #[arg(long, short, conflicts_with = "redis")]
    all: bool,
    #[command(flatten)]
    directly: Directly,
    /// Show the sessions of this instance
    #[arg(long, value_name = "NAME", conflicts_with = "watch")]
    instance: Option<String>,
    /// Show the sessions of this thing, on all instances
    #[arg(long, value_name = "ID", conflicts_with = "watch")]
    thing: Option<ThingId>,
    #[command(subcommand)]
    command: Option<PresenceCommand>,
}

#[derive(Subcommand)]
enum PresenceCommand {
    /// Count who is online on all instances: by instance, and by channel
    Count {
        /// Count the things of channels too: the server has to have the things service
        #[arg(long, conflicts_with = "redis")]
        by_channel: bool,
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        directly: Directly,
    },
    /// Make the roll in Redis anew: instances that are alive from their journals, others from the stream
    Rebuild(Place),
    /// Where a thing is online, on whatever instance, and when it left last
    Seen {
        /// Its id
        thing: ThingId,
        #[command(flatten)]
        directly: Directly,
    },
}

/// A Redis to look at.
#[derive(Args)]
struct Directly {
    /// Look at all instances on this Redis, without asking a server
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// What comes before `.mqtt` in the name of the stream there [default: what the configuration says]
    #[arg(long, requires = "redis")]
    prefix: Option<String>,
}

impl Directly {
    /// All instances there; nothing if a server is to be asked.
    fn overview(&self, config: &Config) -> anyhow::Result<Option<Overview>> {
        let Some(url) = &self.redis else {
            return Ok(None);
        };
        let prefix = self.prefix.as_ref().unwrap_or(&config.redis.prefix);
        let attendance = Shared::new(&Url::new(url), prefix)?;
        Ok(Some(Overview::new(Arc::new(attendance), None)))
    }
}

impl Presence {
    pub(super) async fn run(self, session: &Session<'_>, output: Output) -> anyhow::Result<()> {
        match self.command {
            Some(PresenceCommand::Count {
                by_channel,
                page,
                directly,
            }) => {
                let Page { offset, limit } = page;
                let request = api::CountOnlineRequest {
                    by_channel,
                    offset,
                    limit,
                };
                let counted = match directly.overview(session.config)? {
                    Some(overview) => overview.count(false).await?.into(),
                    None => session.connect().await?.count_online(request).await?,
                };
                return show_counts(counted, by_channel, output);
            }
            Some(PresenceCommand::Rebuild(place)) => {
                return rebuild(place, session.config, output).await;
            }
            Some(PresenceCommand::Seen { thing, directly }) => {
                let seen = match directly.overview(session.config)? {
                    Some(overview) => overview.last_seen(thing).await?,
                    None => last_seen(&session.connect().await?, thing).await?,
                };
                return show_seen(thing, &seen, output);
            }
            None => {}
        }
        match self.directly.overview(session.config)? {
            Some(overview) => self.show_redis(&overview, output).await,
            None if self.all || self.instance.is_some() || self.thing.is_some() => {
                self.show_all(&session.connect().await?, output).await
            }
            None => self.list(&session.connect().await?, output).await,
        }
    }

    async fn show_redis(&self, overview: &Overview, output: Output) -> anyhow::Result<()> {
        let page = self.page.of_roll();
        if self.watch {
            let watch = Watch::new(BTreeMap::new(), output);
            return watch.follow_redis(overview.watch(None).await?, &page).await;
        }
        let (instance, thing) = (self.instance.as_deref(), self.thing);
        let listed = overview.list(instance, thing, page.offset, page.limit);
        let (listed, total) = listed.await?;
        Ok(watch::show(&listed, &listed.sessions, total, output)?)
    }

    async fn show_all(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let page = self.page.of_roll();
        if self.watch {
            let watch = Watch::new(BTreeMap::new(), output);
            return watch.follow_all(client.watch().await?, &page).await;
        }
        let request = api::ListSessionsRequest {
            offset: page.offset,
            limit: page.limit,
            instance: self.instance,
            thing_id: self.thing.map(|it| it.to_string()),
        };
        let listing = client.sessions(request).await?;
        let register = Register {
            at: listing.at,
            sessions: listing.sessions.into_iter().map(attendee).collect(),
            instances: by_instance(listing.instances),
        };
        Ok(watch::show(
            &register,
            &register.sessions,
            listing.total,
            output,
        )?)
    }

    async fn list(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let listing = client.online(self.page.of_roll()).await?;
        let sessions = listing.sessions.into_iter().map(|it| Attendee {
            session_id: it.session_id,
            thing_id: it.thing_id,
            instance: listing.instance.clone(),
            client_id: it.client_id,
            protocol: it.protocol,
            peer: it.peer,
            since: Timestamp(it.since),
        });
        let sessions: Vec<_> = sessions.collect();
        let value = json!({
            "instance": listing.instance,
            "total": listing.total,
            "position": listing.position,
            "sessions": sessions.iter().map(watch::session).collect::<Vec<_>>(),
        });
        watch::table(&value, &sessions, output)?;
        if !output.json {
            let total = listing.total;
            output.line(&format!("{total} online{}", watch::rest(&sessions, total)))?;
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

fn by_instance(counts: Vec<api::InstanceCount>) -> BTreeMap<String, u64> {
    let counts = counts.into_iter();
    counts.map(|it| (it.instance, it.sessions)).collect()
}

fn show_counts(
    counted: api::CountOnlineResponse,
    by_channel: bool,
    output: Output,
) -> anyhow::Result<()> {
    let instances = by_instance(counted.instances);
    let channels = counted.channels.iter().map(
        |it| json!({ "channel_id": it.channel_id, "things": it.things, "sessions": it.sessions }),
    );
    let mut value = json!({
        "at": counted.at,
        "sessions": counted.sessions,
        "things": counted.things,
        "instances": instances,
    });
    if by_channel {
        value["channels"] = channels.collect();
        value["channels_total"] = counted.channels_total.into();
    }
    if output.json {
        return Ok(output.line(&value.to_string())?);
    }
    if by_channel {
        let rows: Vec<_> = counted
            .channels
            .iter()
            .map(|it| {
                [
                    it.channel_id.clone(),
                    it.things.to_string(),
                    it.sessions.to_string(),
                ]
            })
            .collect();
        output.table(&value, ["CHANNEL", "THINGS", "SESSIONS"], &rows)?;
    }
    for (instance, count) in &instances {
        let instance = instance.escape_debug();
        output.line(&format!("{count} on {instance}"))?;
    }
    let (things, sessions) = (counted.things, counted.sessions);
    let things = match things {
        1 => "1 thing".to_owned(),
        things => format!("{things} things"),
    };
    Ok(output.line(&format!("{sessions} online, of {things}"))?)
}

async fn last_seen(client: &Client, thing: ThingId) -> anyhow::Result<LastSeen> {
    let seen = client.last_seen(thing.to_string()).await?;
    let left = seen.last_left.map(|left| Left {
        id: left.id,
        at: Timestamp(left.occurred_at),
        instance: left.instance,
    });
    Ok(LastSeen {
        sessions: seen.sessions.into_iter().map(attendee).collect(),
        left,
    })
}

fn show_seen(thing: ThingId, seen: &LastSeen, output: Output) -> anyhow::Result<()> {
    let LastSeen { sessions, left } = seen;
    let last_left = left.as_ref().map(|left| {
        json!({
            "at": left.at.rfc3339(),
            "occurred_at": left.at.to_string(),
            "instance": left.instance,
            "id": left.id,
        })
    });
    let report = json!({
        "thing_id": thing.to_string(),
        "online": sessions.len(),
        "sessions": sessions.iter().map(watch::session).collect::<Vec<_>>(),
        "last_left": last_left,
    });
    let mut lines: Vec<String> = sessions
        .iter()
        .map(|it| {
            let (since, instance) = (it.since.rfc3339(), &it.instance);
            format!(
                "online since {since} on {instance}, session {}",
                it.session_id
            )
        })
        .collect();
    match left {
        Some(Left { at, instance, .. }) => {
            lines.push(format!("last left at {} from {instance}", at.rfc3339()));
        }
        None if sessions.is_empty() => {
            lines.push("not online, and no departure of it is remembered".to_owned())
        }
        None => {}
    }
    // Others may write there what no terminal should see.
    let lines = lines.iter().map(|line| line.escape_debug().to_string());
    Ok(output.say(&report, &lines.collect::<Vec<_>>().join("\n"))?)
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
