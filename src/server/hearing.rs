//! Bootstrap hears what happens to things and channels: from the stream in Redis, or without Redis from the log of the
//! things service here.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metrics::{Counter, counter, describe_counter, describe_gauge, gauge};
use rollcall_domain::bootstrap::{Bootstrap, Told, understand};
use rollcall_domain::ports::{EventLog, EventSource, LogError, Sourced};
use tokio::sync::watch;

/// Entries of one look into a log.
const PAGE: usize = 100;
/// The pause after a failure, doubled after each further one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The log of the things service in this process.
pub(super) struct LogSource(pub(super) Arc<dyn EventLog>);

#[async_trait]
impl EventSource for LogSource {
    fn name(&self) -> &str {
        "bootstrap things.log"
    }

    fn beginning(&self) -> String {
        self.0.last().to_string()
    }

    async fn read(&mut self, after: &str) -> Result<Sourced, LogError> {
        let after = after.parse().unwrap_or(0);
        if after > self.0.last() {
            return Ok(Sourced::Anew("0".to_owned()));
        }
        self.0.wait(after).await;
        let entries = self.0.read(after, PAGE).await?.into_iter();
        let entries = entries.map(|entry| (entry.position.to_string(), entry.fields));
        Ok(Sourced::Entries(entries.collect()))
    }

    async fn done(&mut self, _: &[String]) -> Result<(), LogError> {
        Ok(())
    }
}

pub(super) struct Hearing {
    bootstrap: Arc<Bootstrap>,
    source: Box<dyn EventSource>,
    news: Counter,
    others: Counter,
    set_aside: Counter,
}

impl Hearing {
    /// Remembers where to begin, so that nothing is missed that happens from now on.
    pub(super) async fn begin(
        bootstrap: Arc<Bootstrap>,
        source: Box<dyn EventSource>,
    ) -> anyhow::Result<Self> {
        let name = source.name();
        if bootstrap.heard_last(name).await?.is_none() {
            let beginning = source.beginning();
            bootstrap.hear_from(name, None, &beginning).await?;
        }
        describe_counter!(
            "rollcall_bootstrap_heard_total",
            "Events of things that bootstrap has heard, by what they are to it"
        );
        describe_counter!(
            "rollcall_bootstrap_hearing_failures_total",
            "Times events of things could not be read or taken over"
        );
        describe_gauge!(
            "rollcall_bootstrap_hearing_up",
            "1 if events of things could be heard when last tried, else 0"
        );
        let heard = |kind| counter!("rollcall_bootstrap_heard_total", "kind" => kind);
        Ok(Self {
            bootstrap,
            source,
            news: heard("news"),
            others: heard("other"),
            set_aside: heard("set_aside"),
        })
    }

    /// Hears until `stop` is true.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.hear() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn hear(&mut self) {
        let failures = counter!("rollcall_bootstrap_hearing_failures_total");
        let up = gauge!("rollcall_bootstrap_hearing_up");
        let mut pause = PAUSES.0;
        loop {
            match self.turn().await {
                Ok(()) => {
                    up.set(1.0);
                    if pause != PAUSES.0 {
                        tracing::info!("events of things are heard again");
                    }
                    pause = PAUSES.0;
                }
                Err(error) => {
                    failures.increment(1);
                    up.set(0.0);
                    if pause == PAUSES.0 {
                        tracing::warn!(error = &*error, "cannot hear events of things; they wait");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// Reads some entries and takes them over, each in a transaction with the place of it.
    async fn turn(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let name = self.source.name().to_owned();
        let last = self.bootstrap.heard_last(&name).await?;
        let mut last = last.unwrap_or_else(|| self.source.beginning());
        let entries = match self.source.read(&last).await? {
            Sourced::Entries(entries) => entries,
            Sourced::Anew(place) => {
                tracing::info!(
                    source = name,
                    "events of things begin anew, and are heard from there"
                );
                let anew = self.bootstrap.hear_from(&name, Some(&last), &place);
                return Ok(anew.await?);
            }
        };
        let mut done = Vec::with_capacity(entries.len());
        let count = entries.len();
        for (number, (id, fields)) in entries.into_iter().enumerate() {
            done.push(id.clone());
            if number + 1 < count && matches!(understand(&fields), Ok(None)) {
                // The next one takes the place along.
                self.others.increment(1);
                continue;
            }
            match self
                .bootstrap
                .hear(&name, Some(&last), &id, &fields)
                .await?
            {
                Told::News => self.news.increment(1),
                Told::NoNews => self.others.increment(1),
                Told::SetAside(reason) => {
                    self.set_aside.increment(1);
                    tracing::warn!(
                        source = name,
                        id,
                        reason,
                        "an event of things makes no sense"
                    );
                }
                // Another process with the same database was faster.
                Told::ByOthers => return Ok(()),
            }
            last = id;
        }
        if !done.is_empty() {
            self.source.done(&done).await?;
        }
        Ok(())
    }
}
