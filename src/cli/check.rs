//! `rollcall check-presence`: does a stream of presence keep its promises?

use anyhow::Context;
use clap::Args;
use rollcall_domain::audit::{Audit, Listed, Promise};
use rollcall_redis::Url;
use rollcall_redis::roll::{self, View};
use rollcall_redis::stream::{Reader, place};
use serde_json::json;

use super::output::Output;
use crate::config::Config;

#[derive(Args)]
pub(super) struct CheckPresence {
    #[command(flatten)]
    place: Place,
    /// Sessions may have begun before the stream, though nothing says that it was trimmed
    #[arg(long)]
    partial: bool,
}

/// Where a stream of presence is.
#[derive(Args)]
pub(super) struct Place {
    /// The Redis that has the stream [default: what the configuration says]
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// What comes before `.mqtt` in the name of the stream [default: what the configuration says]
    #[arg(long)]
    prefix: Option<String>,
}

impl Place {
    pub(super) fn find(self, config: &Config) -> anyhow::Result<(Url, String)> {
        let url = match self.redis {
            Some(url) => Url::new(url),
            None => config.redis.url.clone(),
        };
        anyhow::ensure!(
            !url.is_empty(),
            "say which Redis: --redis redis://host:6379"
        );
        let prefix = self.prefix.unwrap_or_else(|| config.redis.prefix.clone());
        Ok((url, prefix))
    }
}

impl CheckPresence {
    pub(super) async fn run(self, config: &Config, output: Output) -> anyhow::Result<()> {
        let (url, prefix) = self.place.find(config)?;
        // What the roll is compared with is the stream as it was when the roll was looked at.
        let view = roll::view(&url, &prefix).await?;
        let partial = self.partial || view.is_partial;
        let mut audit = Audit::new(partial);
        let mut reader = Reader::new(&url, format!("{prefix}.mqtt"), 0)?;
        let end = place(&view.last);
        'reading: loop {
            let entries = reader.next().await;
            let entries = entries.with_context(|| format!("cannot read from Redis at {url}"))?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                if place(&entry.id) > end {
                    break 'reading;
                }
                let fields = entry.fields.iter();
                audit.entry(&entry.id, fields.map(|(name, value)| (&**name, &**value)));
            }
        }
        let (online, doubled) = (audit.online(), audit.doubled());
        if view.has_roll {
            audit.roll(&listed(&view));
        }
        report(&audit, &view, (online, doubled), partial, output)?;
        match audit.breaches() {
            [] => Ok(()),
            _ => anyhow::bail!("{prefix}.mqtt does not keep its promises"),
        }
    }
}

fn listed(view: &View) -> Vec<Listed> {
    let rows = view.parts.iter().flat_map(|part| &part.rows);
    rows.map(|(session, row)| Listed {
        session: session.clone(),
        thing: row.thing_id.clone(),
        instance: row.instance.clone(),
        since: row.since.parse().unwrap_or(0),
    })
    .collect()
}

fn report(
    audit: &Audit,
    view: &View,
    (online, doubled): (u64, usize),
    partial: bool,
    output: Output,
) -> std::io::Result<()> {
    let checked: Vec<Promise> = Promise::ALL
        .into_iter()
        .filter(|promise| *promise != Promise::Roll || view.has_roll)
        .collect();
    let breaches: u64 = checked.iter().map(|promise| audit.broken(*promise)).sum();
    if output.json {
        let promises = checked.iter().map(|promise| {
            let broken = audit.broken(*promise);
            json!({ "promise": promise.as_str(), "meaning": promise.describe(), "broken": broken })
        });
        let named = audit.breaches().iter().map(|breach| {
            json!({ "promise": breach.promise.as_str(), "id": breach.id, "what": breach.what })
        });
        let value = json!({
            "entries": audit.entries(),
            "last": view.last,
            "sessions": audit.sessions(),
            "online": online,
            "clients_online_twice": doubled,
            "partial": partial,
            "begun_before": audit.earlier(),
            "crossed_clocks": audit.crossed(),
            "promises": promises.collect::<Vec<_>>(),
            "breaches": breaches,
            "first_breaches": named.collect::<Vec<_>>(),
        });
        return output.line(&value.to_string());
    }
    output.line(&format!(
        "{} entries up to {}: {} sessions, {online} online",
        audit.entries(),
        view.last,
        audit.sessions()
    ))?;
    if partial {
        let earlier = audit.earlier();
        output.line(&format!(
            "the stream has lost its beginning: {earlier} sessions began before it"
        ))?;
    }
    if audit.crossed() > 0 {
        output.line(&format!(
            "{} events are older than one before them of the same thing on another instance: late, or clocks differ",
            audit.crossed()
        ))?;
    }
    if doubled > 0 {
        output.line(&format!(
            "{doubled} clients are online more than once: an arrival was late, or redis.take_over is off"
        ))?;
    }
    for promise in checked {
        let (state, name) = (audit.broken(promise), promise.as_str());
        let state = match state {
            0 => "kept".to_owned(),
            times => format!("broken {times} times"),
        };
        output.line(&format!("{name:8}  {state:>16}  {}", promise.describe()))?;
    }
    for breach in audit.breaches() {
        // Others may write there what no terminal should see.
        output.line(&breach.to_string().escape_debug().to_string())?;
    }
    if breaches > audit.breaches().len() as u64 {
        let more = breaches - audit.breaches().len() as u64;
        output.line(&format!("and {more} more"))?;
    }
    Ok(())
}
