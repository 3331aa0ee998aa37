//! What a run has found, as a line for people or for programs.

use crate::broker::Kind;
use crate::process::CpuTime;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: &'static str,
    pub(crate) broker: Kind,
    /// The figure the scenario is about, in `unit`.
    pub(crate) figure: f64,
    pub(crate) unit: &'static str,
    /// Messages, cycles or sessions the figure is made of.
    pub(crate) count: u64,
    pub(crate) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<CpuPerItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<Latency>,
    /// From the end of a storm until Redis had every event of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) drain_seconds: Option<f64>,
    pub(crate) faults: Faults,
}

/// CPU time for one message or cycle, in microseconds.
#[derive(Serialize)]
pub(crate) struct CpuPerItem {
    broker_micros: f64,
    tool_micros: f64,
}

#[derive(Serialize)]
pub(crate) struct Latency {
    p50_micros: f64,
    p90_micros: f64,
    p99_micros: f64,
    p999_micros: f64,
    max_micros: f64,
}

impl Latency {
    pub(crate) fn of(nanos: &Histogram<u64>) -> Self {
        let micros = |quantile| nanos.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            p50_micros: micros(0.5),
            p90_micros: micros(0.9),
            p99_micros: micros(0.99),
            p999_micros: micros(0.999),
            max_micros: nanos.max() as f64 / 1_000.0,
        }
    }
}

/// What must not happen. Any of them makes the tool fail.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct Faults {
    /// Deliveries that never came.
    pub(crate) missing: u64,
    /// Messages that came after a later one of the same publisher.
    pub(crate) late: u64,
    /// Messages that came twice.
    pub(crate) repeated: u64,
    /// Messages without their PUBACK.
    pub(crate) unacked: u64,
    /// Packets that had no business here.
    pub(crate) strange: u64,
    /// Sessions refused at the door.
    pub(crate) refused: u64,
    /// Connections that failed or were closed by the broker.
    pub(crate) closed: u64,
    /// Presence events that were missing in Redis, or too many.
    pub(crate) events_wrong: u64,
}

impl Faults {
    fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("missing", self.missing),
            ("late", self.late),
            ("repeated", self.repeated),
            ("unacked", self.unacked),
            ("strange packets", self.strange),
            ("refused", self.refused),
            ("closed", self.closed),
            ("wrong events", self.events_wrong),
        ]
    }

    pub(crate) fn any(&self) -> bool {
        self.named().iter().any(|(_, count)| *count > 0)
    }
}

impl Report {
    /// A report on `count` items within `elapsed`, in `unit` items a second.
    pub(crate) fn rate(
        scenario: &'static str,
        broker: Kind,
        unit: &'static str,
        count: u64,
        elapsed: Duration,
        cpu: CpuTime,
        faults: Faults,
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        let per_item = |micros: u64| micros as f64 / count.max(1) as f64;
        Self {
            scenario,
            broker,
            figure: count as f64 / seconds,
            unit,
            count,
            seconds,
            cpu: Some(CpuPerItem {
                broker_micros: per_item(cpu.broker),
                tool_micros: per_item(cpu.tool),
            }),
            latency: None,
            drain_seconds: None,
            faults,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let broker = format!("{:?}", self.broker).to_lowercase();
        write!(
            f,
            "{:<12} {:<10} {:>12} {:<17}",
            self.scenario,
            broker,
            grouped(self.figure),
            self.unit
        )?;
        if let Some(cpu) = &self.cpu {
            write!(
                f,
                " cpu {:.2} us broker, {:.2} us tool;",
                cpu.broker_micros, cpu.tool_micros
            )?;
        }
        if let Some(latency) = &self.latency {
            write!(f, " latency {latency};")?;
        }
        if let Some(seconds) = self.drain_seconds {
            write!(f, " events in Redis {seconds:.2} s after;")?;
        }
        write!(f, "{}", self.faults)
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |micros: f64| micros / 1_000.0;
        let (p50, p99, max) = (self.p50_micros, self.p99_micros, self.max_micros);
        write!(
            f,
            "p50 {:.2} p99 {:.2} max {:.2} ms",
            millis(p50),
            millis(p99),
            millis(max)
        )
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.any() {
            return write!(f, " no faults");
        }
        for (name, count) in self.named().iter().filter(|(_, count)| *count > 0) {
            write!(f, " {count} {name}")?;
        }
        Ok(())
    }
}

/// A number without its fraction, its digits in groups of three.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
