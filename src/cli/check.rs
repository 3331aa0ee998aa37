//! `rollcall check-presence`: do a stream of presence, and the journals that it comes from, keep their promises?

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use rollcall_domain::audit::{Audit, Listed, Promise, Told};
use rollcall_domain::event;
use rollcall_redis::Url;
use rollcall_redis::roll::{self, View};
use rollcall_redis::stream::{Reader, place};
use rollcall_storage::journal::look::Look;
use serde_json::{Value, json};

use super::output::Output;
use crate::config::Config;

#[derive(Args)]
pub(super) struct CheckPresence {
    #[command(flatten)]
    place: Place,
    /// Sessions may have begun before the stream, though nothing says that it was trimmed
    #[arg(long)]
    partial: bool,
    /// Check the journal in this data folder of an instance, too, and that the stream has what it tells and nobody else, if
    /// it names sessions (events.extended). Without a Redis, the journal alone
    #[arg(long, value_name = "FOLDER")]
    journal: Vec<PathBuf>,
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
    fn is_named(&self, config: &Config) -> bool {
        self.redis.is_some() || !config.redis.url.is_empty()
    }

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

/// What was read, and what comes of it.
struct Checked {
    name: String,
    /// The place of the last entry or event.
    last: String,
    audit: Audit,
    promises: Vec<Promise>,
    partial: bool,
    online: u64,
    doubled: usize,
}

impl CheckPresence {
    pub(super) async fn run(self, config: &Config, output: Output) -> anyhow::Result<()> {
        let mut journals = Vec::new();
        for folder in &self.journal {
            // Up to where it counts as relayed is to be known before the stream is read.
            let look = Look::open(&folder.join("presence.db")).await?;
            journals.push((Told::of(look.instances()), look));
        }
        let mut all = Vec::new();
        let mut stream = None;
        if journals.is_empty() || self.place.is_named(config) {
            let (url, prefix) = self.place.find(config)?;
            let read = read_stream(&url, &prefix, self.partial, &mut journals);
            stream = Some(read.await?);
        }
        for (folder, (told, look)) in self.journal.iter().zip(journals) {
            let stream = stream.as_mut().map(|it| &mut it.audit);
            all.push(read_journal(folder, look, told, stream).await?);
        }
        if output.json {
            let mut value = stream.as_ref().map_or(json!({}), Checked::value);
            if !self.journal.is_empty() {
                value["journals"] = all.iter().map(Checked::value).collect();
            }
            output.line(&value.to_string())?;
        }
        all.splice(0..0, stream);
        for checked in &all {
            if !output.json {
                checked.show(output)?;
            }
        }
        let broken = all.iter().find(|it| !it.audit.breaches().is_empty());
        broken.map_or(Ok(()), |it| {
            anyhow::bail!("{} does not keep its promises", it.name)
        })
    }
}

/// Reads a stream up to where it is now, and compares it with the roll as of there. `journals` are to be read after it.
async fn read_stream(
    url: &Url,
    prefix: &str,
    partial: bool,
    journals: &mut [(Told, Look)],
) -> anyhow::Result<Checked> {
    let view = roll::view(url, prefix).await?;
    let partial = partial || view.is_partial;
    let mut audit = Audit::new(partial);
    let name = format!("{prefix}.mqtt");
    let mut reader = Reader::new(url, name.clone(), 0)?;
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
            let fields = fields.map(|(name, value)| (&**name, &**value));
            audit.entry(&entry.id, fields.clone());
            for (told, _) in &mut *journals {
                told.entry(fields.clone());
            }
        }
    }
    let (online, doubled) = (audit.online(), audit.doubled());
    if view.has_roll {
        audit.roll(&listed(&view));
    }
    let mut promises = Promise::ALL.to_vec();
    promises.retain(|it| match it {
        Promise::Roll => view.has_roll,
        Promise::Journal => journals.iter().any(|(told, _)| !told.is_plain()),
        _ => true,
    });
    Ok(Checked {
        name,
        last: view.last,
        audit,
        promises,
        partial,
        online,
        doubled,
    })
}

/// Reads a journal, and compares it with what the stream told.
async fn read_journal(
    folder: &Path,
    mut look: Look,
    mut told: Told,
    mut stream: Option<&mut Audit>,
) -> anyhow::Result<Checked> {
    let mut audit = Audit::new(false);
    let (mut first, mut last) = (None, 0);
    loop {
        let noted = look.next().await?;
        let Some(end) = noted.last() else { break };
        last = end.position;
        if first.is_none() {
            first = noted.first().map(|it| it.position);
            audit = Audit::new(first > Some(1));
        }
        for it in noted {
            let fields = event::presence(&it.presence, &it.instance, true);
            let fields = fields.iter().map(|(name, value)| (&**name, &**value));
            audit.entry(&it.position.to_string(), fields);
            if let Some(stream) = &mut stream {
                told.noted(&it, look.relayed(), stream);
            }
        }
    }
    if let Some(stream) = stream {
        told.end(stream);
    }
    let mut promises = Promise::ALL.to_vec();
    promises.retain(|it| !matches!(it, Promise::Roll | Promise::Journal));
    Ok(Checked {
        name: format!("the journal in {}", folder.display()),
        last: last.to_string(),
        online: audit.online(),
        doubled: audit.doubled(),
        audit,
        promises,
        partial: first > Some(1),
    })
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

impl Checked {
    fn breaches(&self) -> u64 {
        let promises = self.promises.iter();
        promises.map(|promise| self.audit.broken(*promise)).sum()
    }

    fn value(&self) -> Value {
        let audit = &self.audit;
        let promises = self.promises.iter().map(|promise| {
            let broken = audit.broken(*promise);
            json!({ "promise": promise.as_str(), "meaning": promise.describe(), "broken": broken })
        });
        let named = audit.breaches().iter().map(|breach| {
            json!({ "promise": breach.promise.as_str(), "id": breach.id, "what": breach.what })
        });
        json!({
            "entries": audit.entries(),
            "last": self.last,
            "sessions": audit.sessions(),
            "online": self.online,
            "clients_online_twice": self.doubled,
            "partial": self.partial,
            "begun_before": audit.earlier(),
            "crossed_clocks": audit.crossed(),
            "promises": promises.collect::<Vec<_>>(),
            "breaches": self.breaches(),
            "first_breaches": named.collect::<Vec<_>>(),
        })
    }

    fn show(&self, output: Output) -> std::io::Result<()> {
        let Self { audit, online, .. } = self;
        output.line(&format!(
            "{}: {} events up to {}, {} sessions, {online} online",
            self.name,
            audit.entries(),
            self.last,
            audit.sessions()
        ))?;
        if self.partial {
            let earlier = audit.earlier();
            output.line(&format!(
                "its beginning is lost: {earlier} sessions began before it"
            ))?;
        }
        if audit.crossed() > 0 {
            output.line(&format!(
                "{} events are older than one before them of the same thing on another instance: late, or clocks differ",
                audit.crossed()
            ))?;
        }
        if self.doubled > 0 {
            output.line(&format!(
                "{} clients are online more than once: an arrival was late, or redis.take_over is off",
                self.doubled
            ))?;
        }
        for promise in &self.promises {
            let state = match audit.broken(*promise) {
                0 => "kept".to_owned(),
                times => format!("broken {times} times"),
            };
            let name = promise.as_str();
            output.line(&format!("{name:8}  {state:>16}  {}", promise.describe()))?;
        }
        for breach in audit.breaches() {
            // Others may write there what no terminal should see.
            output.line(&breach.to_string().escape_debug().to_string())?;
        }
        let more = self.breaches() - audit.breaches().len() as u64;
        if more > 0 {
            output.line(&format!("and {more} more"))?;
        }
        Ok(())
    }
}
