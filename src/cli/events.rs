//! `rollcall events`: what happened, in the layout of redis-cli or as JSON.

use std::io::{self, BufWriter, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use rollcall_domain::event::Stream;
use rollcall_grpc::api::read_events_request::Since as From;
use rollcall_redis::Url;
use rollcall_redis::stream::Reader;
use serde_json::{Map, Value};

use super::Session;
use super::output::Output;

/// After a Redis that is followed has gone away.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(super) struct Events {
    /// users, things, bootstrap or mqtt; a prefix such as mainflux. may stand before it
    #[arg(long, default_value = "mqtt")]
    stream: String,
    /// Go on with events as they happen
    #[arg(long, short)]
    follow: bool,
    /// From when on: 10m (ago), 2026-01-31T12:00:00Z, or the position after which to begin
    #[arg(long, default_value = "0", value_parser = parse_since)]
    since: Since,
    /// Read them from this Redis, rather than from the server's journal
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// A position, or milliseconds of a stream id.
    Number(u64),
    /// Nanoseconds since the Unix epoch.
    Time(u64),
}

fn parse_since(text: &str) -> Result<Since, String> {
    if let Ok(number) = text.parse() {
        return Ok(Since::Number(number));
    }
    let time = match humantime::parse_duration(text) {
        Ok(ago) => SystemTime::now().checked_sub(ago),
        Err(_) => humantime::parse_rfc3339_weak(text).ok(),
    };
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let since = since.and_then(|since| u64::try_from(since.as_nanos()).ok());
    since.map(Since::Time).ok_or_else(|| {
        "write how long ago (10m, 2h), a time (2026-01-31T12:00:00Z) or a position (1200)"
            .to_owned()
    })
}

impl Events {
    pub(super) async fn run(self, session: &Session<'_>, output: Output) -> anyhow::Result<()> {
        let short = self.stream.rsplit('.').next().unwrap_or_default();
        let stream: Stream = short.parse()?;
        let mut printer = Printer::new(output);
        match &self.redis {
            Some(url) => {
                self.read_redis(&Url::new(url), session, stream, &mut printer)
                    .await
            }
            None => self.read_server(session, stream, &mut printer).await,
        }
    }

    async fn read_server(
        &self,
        session: &Session<'_>,
        stream: Stream,
        printer: &mut Printer,
    ) -> anyhow::Result<()> {
        let since = match self.since {
            Since::Number(position) => From::Position(position),
            Since::Time(time) => From::OccurredAt(time),
        };
        let client = session.connect().await?;
        let mut events = client
            .events(stream.as_str().to_owned(), since, self.follow)
            .await?;
        while let Some(page) = events.next().await? {
            for event in page {
                let fields = event
                    .fields
                    .into_iter()
                    .map(|field| (field.name, field.value));
                let fields: Vec<(String, String)> = fields.collect();
                let at = fields.iter().find(|(name, _)| name == "occurred_at");
                let at = at.and_then(|(_, at)| at.parse::<u64>().ok()).unwrap_or(0);
                printer.print(&format!("{}-{}", at / 1_000_000, event.position), &fields)?;
            }
            printer.flush()?;
        }
        Ok(())
    }

    async fn read_redis(
        &self,
        url: &Url,
        session: &Session<'_>,
        stream: Stream,
        printer: &mut Printer,
    ) -> anyhow::Result<()> {
        let milliseconds = match self.since {
            Since::Number(milliseconds) => milliseconds,
            Since::Time(nanoseconds) => nanoseconds / 1_000_000,
        };
        let name = format!("{}.{}", session.config.redis.prefix, stream.as_str());
        let mut reader = Reader::new(url, name, milliseconds)?;
        let mut begun = false;
        loop {
            let entries = if self.follow {
                reader.follow().await
            } else {
                reader.next().await
            };
            let entries = match entries {
                Ok(entries) => entries,
                // It was there, so it may come back.
                Err(error) if self.follow && begun => {
                    eprintln!("rollcall: {error}; trying again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read from Redis at {url}"));
                }
            };
            begun = true;
            if entries.is_empty() && !self.follow {
                return Ok(());
            }
            for entry in entries {
                let fields = entry.fields.into_iter();
                let fields: Vec<(String, String)> = fields
                    .map(|(name, value)| (name.into_owned(), value.into_owned()))
                    .collect();
                printer.print(&entry.id, &fields)?;
            }
            printer.flush()?;
        }
    }
}

struct Printer {
    output: Output,
    out: BufWriter<io::Stdout>,
    count: u64,
}

impl Printer {
    fn new(output: Output) -> Self {
        Self {
            output,
            out: BufWriter::new(io::stdout()),
            count: 0,
        }
    }

    fn print(&mut self, id: &str, fields: &[(String, String)]) -> io::Result<()> {
        self.count += 1;
        if self.output.json {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.clone(), Value::from(value.as_str())));
            let fields: Map<String, Value> = fields.collect();
            return writeln!(
                self.out,
                "{}",
                serde_json::json!({ "id": id, "fields": fields })
            );
        }
        writeln!(self.out, "{}", layout(self.count, id, fields))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// One entry as redis-cli shows it in a list.
fn layout(number: u64, id: &str, fields: &[(String, String)]) -> String {
    let number = format!("{number}) ");
    let inner = " ".repeat(number.len());
    let width = (2 * fields.len()).to_string().len();
    let mut text = format!("{number}1) {}\n{inner}2) ", quoted(id));
    let values = fields.iter().flat_map(|(name, value)| [name, value]);
    for (n, value) in values.enumerate() {
        if n > 0 {
            text.push_str(&format!("\n{inner}   "));
        }
        text.push_str(&format!("{:width$}) {}", n + 1, quoted(value)));
    }
    text
}

/// As redis-cli quotes text.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b'\n' => quoted.push_str("\\n"),
            b'\r' => quoted.push_str("\\r"),
            b'\t' => quoted.push_str("\\t"),
            0x07 => quoted.push_str("\\a"),
            0x08 => quoted.push_str("\\b"),
            b' '..=b'~' => quoted.push(char::from(byte)),
            other => quoted.push_str(&format!("\\x{other:02x}")),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_looks_as_in_redis_cli() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let four = [
            field("thing_id", "t"),
            field("event_type", "connect"),
            field("instance", "a \"b\"\n"),
            field("occurred_at", "1"),
        ];
        let expected = "\
12) 1) \"1-0\"
    2) 1) \"thing_id\"
       2) \"t\"
       3) \"event_type\"
       4) \"connect\"
       5) \"instance\"
       6) \"a \\\"b\\\"\\n\"
       7) \"occurred_at\"
       8) \"1\"";
        assert_eq!(layout(12, "1-0", &four), expected);
        let five: Vec<_> = (0..5).map(|_| field("n", "v")).collect();
        let lines: Vec<String> = layout(1, "1-0", &five).lines().map(str::to_owned).collect();
        assert_eq!(lines[1], "   2)  1) \"n\"");
        assert_eq!(lines[10], "      10) \"v\"");
    }

    #[test]
    fn since_is_an_age_a_time_or_a_number() {
        assert_eq!(parse_since("1200"), Ok(Since::Number(1200)));
        assert_eq!(
            parse_since("2023-08-29T11:06:11Z"),
            Ok(Since::Time(1_693_307_171_000_000_000))
        );
        assert!(matches!(parse_since("10m"), Ok(Since::Time(_))));
        assert!(parse_since("yesterday").is_err());
    }
}
