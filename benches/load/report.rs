//! What a run found, for people and machines.

use serde_json::{Value, json};

#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    pub(crate) broker: String,
    /// What is counted: cycles, messages, deliveries in a second; bytes of a session.
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    /// Processor time for each of what is counted, in microseconds.
    pub(crate) broker_micros: f64,
    pub(crate) tool_micros: f64,
    /// Milliseconds from publisher to subscriber: median, 99 %.
    pub(crate) latency: Option<(f64, f64)>,
    /// Seconds from the end of the load until Redis had every event.
    pub(crate) drained: Option<f64>,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) disordered: u64,
    pub(crate) refused: u64,
    /// QoS 0 may be lost under load; all else may not.
    pub(crate) may_lose: bool,
}

impl Report {
    pub(crate) fn is_sound(&self) -> bool {
        (self.may_lose || self.lost == 0) && self.doubled + self.disordered + self.refused == 0
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "scenario": self.scenario,
            "broker": self.broker,
            "unit": self.unit,
            "value": self.value,
            "broker_cpu_us": self.broker_micros,
            "tool_cpu_us": self.tool_micros,
            "latency_ms": self.latency.map(|(median, p99)| json!({ "median": median, "p99": p99 })),
            "drained_s": self.drained,
            "lost": self.lost,
            "doubled": self.doubled,
            "disordered": self.disordered,
            "refused": self.refused,
        })
    }

    pub(crate) fn print(&self, json: bool) {
        if json {
            println!("{}", self.json());
            return;
        }
        let mut line = format!(
            "{:<14} {:<10} {:>12.0} {:<13} cpu {:.2} us (tool {:.2} us)",
            self.scenario, self.broker, self.value, self.unit, self.broker_micros, self.tool_micros,
        );
        if let Some((median, p99)) = self.latency {
            line += &format!(", latency {median:.2} ms, 99% {p99:.2} ms");
        }
        if let Some(seconds) = self.drained {
            line += &format!(", drained after {seconds:.1} s");
        }
        for (count, what) in [
            (self.lost, "lost"),
            (self.doubled, "doubled"),
            (self.disordered, "out of order"),
            (self.refused, "refused"),
        ] {
            if count > 0 {
                line += &format!(", {count} {what}");
            }
        }
        println!("{line}");
    }
}
