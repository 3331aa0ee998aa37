//! `rollcall replay`: what the streams add up to, and whether the database says the same.

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use clap::builder::PossibleValuesParser;
use rollcall_domain::event::Stream;
use rollcall_domain::replay::difference::{Comparison, Difference, What};
use rollcall_domain::replay::{Kind, Replay as Fold, Row};
use rollcall_redis::Url;
use rollcall_redis::stream::{Reader, StreamEntry};
use rollcall_storage::snapshot::{Mark, Snapshot};
use serde_json::{Map, Value, json};

use super::output::Output;
use crate::config::Config;

/// The streams that tell of a state.
const STREAMS: [Stream; 3] = [Stream::Users, Stream::Things, Stream::Bootstrap];
/// Entries of the database that are read at one time.
const PAGE: usize = 1_000;
/// How often it is looked whether Redis has got more.
const LOOK: Duration = Duration::from_millis(50);
/// Differences that are shown to people; machines get all.
const SHOWN: usize = 100;
const NOT_COMPARED: &str = "passwords, keys, roles, and who changed a policy last, which events do not tell; content \
     and private keys of configurations, which the database has sealed";

#[derive(Args)]
pub(super) struct Replay {
    /// Show them, as the streams tell of them, not only how many there are
    #[arg(value_name = "KIND", value_parser = PossibleValuesParser::new(Kind::ALL.map(Kind::as_str)))]
    show: Vec<String>,
    /// The Redis that has the streams [default: what the configuration says; without one, the database's own events]
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// What comes before `.users` in the name of the stream [default: what the configuration says]
    #[arg(long)]
    prefix: Option<String>,
    /// Do not compare with the database
    #[arg(long, requires = "redis")]
    streams_only: bool,
    /// How long to wait for events that are on their way to Redis
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    wait: Duration,
}

impl Replay {
    pub(super) async fn run(self, config: &Config, output: Output) -> anyhow::Result<()> {
        let redis = match &self.redis {
            Some(url) => Url::new(url.as_str()),
            None => config.redis.url.clone(),
        };
        let prefix = self.prefix.as_ref().unwrap_or(&config.redis.prefix);
        let mut snapshot = match self.streams_only {
            true => None,
            false => Some(open(config).await?),
        };
        let marks = match &mut snapshot {
            Some(snapshot) => snapshot.marks().await?,
            None => Vec::new(),
        };
        let fold = match (redis.is_empty(), &mut snapshot) {
            (false, _) => self.read_redis(&redis, prefix, &marks).await?,
            (true, Some(snapshot)) => read_database(snapshot, &marks).await?,
            (true, None) => unreachable!("invariant: --streams-only asks for --redis"),
        };
        let database = match &mut snapshot {
            Some(snapshot) => Some(snapshot.state().await?),
            None => None,
        };
        let comparison = database.as_ref().map(|state| fold.compare(state));
        let told = Told {
            fold: &fold,
            counts: database.map(|state| Kind::ALL.map(|kind| state.count(kind))),
            comparison: comparison.as_ref(),
            show: &self.show,
        };
        match output.json {
            true => output.line(&told.json().to_string())?,
            false => told.print(output)?,
        }
        anyhow::ensure!(
            fold.misfit_count() == 0,
            "{} entries do not fit to those before them",
            fold.misfit_count()
        );
        match comparison.map_or(0, |it| it.differences.len()) {
            0 => Ok(()),
            count => anyhow::bail!("streams and database differ in {count} places"),
        }
    }

    /// Reads everything that is in Redis up to what the snapshot has: later events tell of a later state.
    async fn read_redis(&self, url: &Url, prefix: &str, marks: &[Mark]) -> anyhow::Result<Fold> {
        let end = Instant::now() + self.wait;
        let failed = || format!("cannot read from Redis at {url}");
        let mut partial = Vec::new();
        let mut readers = Vec::new();
        for stream in STREAMS {
            let mut reader = Reader::new(url, format!("{prefix}.{}", stream.as_str()), 0)?;
            if reader.has_lost_entries().await.with_context(failed)? {
                partial.push(stream);
            }
            readers.push((stream, reader));
        }
        let mut fold = Fold::new(partial);
        for (stream, mut reader) in readers {
            let until = marks.iter().find(|mark| mark.stream == stream);
            let until = until.map(|mark| mark.last_at);
            let mut latest = 0;
            loop {
                let entries = reader.next().await.with_context(failed)?;
                if entries.is_empty() && until.is_none_or(|until| latest >= until) {
                    break;
                }
                if entries.is_empty() {
                    anyhow::ensure!(
                        Instant::now() < end,
                        "{prefix}.{} lacks the latest events that the database tells of: they are on their way, or \
                         this is the Redis of another server",
                        stream.as_str()
                    );
                    tokio::time::sleep(LOOK).await;
                }
                for entry in entries {
                    let at = occurred_at(&entry);
                    latest = at.max(latest);
                    if until.is_none_or(|until| at <= until) {
                        let fields = entry.fields.iter();
                        fold.entry(stream, &entry.id, fields.map(|(n, v)| (&**n, &**v)));
                    }
                }
            }
        }
        Ok(fold)
    }
}

fn occurred_at(entry: &StreamEntry) -> u64 {
    let field = entry.fields.iter().find(|(name, _)| name == "occurred_at");
    field.and_then(|(_, at)| at.parse().ok()).unwrap_or(0)
}

/// A PostgreSQL if one is configured, else the file in the data folder. A server may be running on either.
async fn open(config: &Config) -> anyhow::Result<Snapshot> {
    if !config.storage.url.is_empty() {
        return Ok(Snapshot::of_postgres(&config.storage).await?);
    }
    let path = config.data.join("rollcall.db");
    anyhow::ensure!(
        path.exists(),
        "there is no {} to compare with: name another folder (--data), or compare with nothing (--redis URL --streams-only)",
        path.display()
    );
    Ok(Snapshot::of_file(&path).await?)
}

async fn read_database(snapshot: &mut Snapshot, marks: &[Mark]) -> anyhow::Result<Fold> {
    let partial = marks.iter().filter(|mark| mark.has_lost_events);
    let mut fold = Fold::new(partial.map(|mark| mark.stream).collect());
    for stream in STREAMS {
        let mut position = 0;
        loop {
            let entries = snapshot.events(stream, position, PAGE).await?;
            let Some(last) = entries.last() else { break };
            position = last.position;
            for entry in &entries {
                let fields = entry.fields.iter().map(|(name, value)| (&**name, &**value));
                fold.entry(stream, &entry.position.to_string(), fields);
            }
        }
    }
    Ok(fold)
}

/// What there is to be told.
struct Told<'a> {
    fold: &'a Fold,
    /// How many of each kind the database has.
    counts: Option<[usize; Kind::ALL.len()]>,
    comparison: Option<&'a Comparison>,
    show: &'a [String],
}

impl Told<'_> {
    /// Of each kind: how many in the streams, in the database, and different.
    fn numbers(&self) -> impl Iterator<Item = (Kind, usize, Option<usize>, usize)> {
        Kind::ALL.into_iter().enumerate().map(|(n, kind)| {
            let differences = self.comparison.map_or(&[][..], |it| &it.differences);
            let different = differences.iter().filter(|it| it.kind == kind).count();
            let database = self.counts.map(|counts| counts[n]);
            (kind, self.fold.state().count(kind), database, different)
        })
    }

    fn shown(&self) -> impl Iterator<Item = Kind> {
        let wanted = |kind: &Kind| self.show.iter().any(|name| name == kind.as_str());
        Kind::ALL.into_iter().filter(wanted)
    }

    fn json(&self) -> Value {
        let fold = self.fold;
        let streams = STREAMS.map(|stream| {
            json!({
                "stream": stream.as_str(),
                "entries": fold.entries(stream),
                "partial": fold.partial().contains(&stream),
            })
        });
        let kinds = self.numbers().map(|(kind, streams, database, different)| {
            json!({
                "kind": kind.as_str(),
                "streams": streams,
                "database": database,
                "different": different,
            })
        });
        let misfits = fold
            .misfits()
            .iter()
            .map(|it| json!({ "stream": it.stream.as_str(), "id": it.id, "what": it.what }));
        let unknown: Map<String, Value> = fold
            .unknown()
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect();
        let mut value = json!({
            "streams": streams,
            "kinds": kinds.collect::<Vec<_>>(),
            "late": fold.late(),
            "misfits": fold.misfit_count(),
            "first_misfits": misfits.collect::<Vec<_>>(),
            "unknown_operations": unknown,
        });
        if let Some(comparison) = self.comparison {
            let differences = comparison.differences.iter().map(difference);
            value["differences"] = differences.collect();
            value["untold"] = comparison.untold.into();
            value["not_compared"] = NOT_COMPARED.into();
        }
        if !self.show.is_empty() {
            let state = self.shown().map(|kind| {
                let rows = fold.state().rows(kind).map(|(id, row)| shown(id, row));
                (kind.as_str().to_owned(), rows.collect())
            });
            value["state"] = Value::Object(state.collect());
        }
        value
    }

    fn print(&self, output: Output) -> std::io::Result<()> {
        let fold = self.fold;
        for kind in self.shown() {
            for (id, row) in fold.state().rows(kind) {
                let columns = kind.columns().iter();
                let values = columns.filter_map(|column| {
                    let value = row.get(column).filter(|value| !value.is_empty())?;
                    Some(format!("{column}={}", value.escape_debug()))
                });
                let values: Vec<String> = values.collect();
                let (kind, id) = (kind.as_str(), id.escape_debug());
                output.line(&format!("{kind} {id}: {}", values.join(" ")))?;
            }
        }
        for stream in STREAMS {
            let lost = match fold.partial().contains(&stream) {
                true => ", its beginning is lost",
                false => "",
            };
            let (name, entries) = (stream.as_str(), fold.entries(stream));
            output.line(&format!("{name}: {entries} entries{lost}"))?;
        }
        let rows: Vec<[String; 4]> = self
            .numbers()
            .map(|(kind, streams, database, different)| {
                let database = database.map_or("-".to_owned(), |count| count.to_string());
                let kind = kind.as_str().to_owned();
                [kind, streams.to_string(), database, different.to_string()]
            })
            .collect();
        let headings = ["KIND", "STREAMS", "DATABASE", "DIFFERENT"];
        output.table(&Value::Null, headings, &rows)?;
        for (name, count) in fold.unknown() {
            let name = name.escape_debug();
            output.line(&format!("{count} events {name} mean nothing here"))?;
        }
        if fold.late() > 0 {
            let late = fold.late();
            output.line(&format!(
                "{late} entries are not later than one before them"
            ))?;
        }
        for misfit in fold.misfits().iter().take(SHOWN) {
            let (stream, id) = (misfit.stream.as_str(), misfit.id.escape_debug());
            output.line(&format!("{stream} {id}: {}", misfit.what.escape_debug()))?;
        }
        let Some(comparison) = self.comparison else {
            return Ok(());
        };
        for difference in comparison.differences.iter().take(SHOWN) {
            // Others may write into streams what no terminal should see.
            output.line(&difference.to_string().escape_debug().to_string())?;
        }
        let more = comparison.differences.len().saturating_sub(SHOWN);
        if more > 0 {
            output.line(&format!("and {more} more"))?;
        }
        if comparison.untold > 0 {
            let untold = comparison.untold;
            output.line(&format!(
                "{untold} in the database are older than what is left of the streams"
            ))?;
        }
        if comparison.differences.is_empty() {
            output.line("streams and database agree")?;
        }
        output.line(&format!("not compared: {NOT_COMPARED}"))
    }
}

fn difference(it: &Difference) -> Value {
    let (kind, id) = (it.kind.as_str(), &it.id);
    match &it.what {
        What::NotInDatabase => json!({ "kind": kind, "id": id, "what": "not in the database" }),
        What::NotInStreams => json!({ "kind": kind, "id": id, "what": "not in the streams" }),
        What::Value {
            column,
            streams,
            database,
        } => json!({
            "kind": kind,
            "id": id,
            "what": "another value",
            "column": column,
            "streams": streams,
            "database": database,
        }),
    }
}

/// What is not known of it is left out.
fn shown(id: &str, row: &Row) -> Value {
    let mut object = Map::from_iter([("id".to_owned(), id.into())]);
    let values = row
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_str().into()));
    object.extend(values);
    Value::Object(object)
}
