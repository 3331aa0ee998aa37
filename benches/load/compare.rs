//! All scenarios, rollcall and mosquitto in turn: what one disturbs disturbs the other too.

use std::time::Duration;

use serde_json::json;

use crate::Scenario;
use crate::broker::{Broker, Kind};
use crate::report::Report;

/// A scenario and the least ratio to mosquitto it is to reach; or the most, where less is better.
struct Goal {
    name: &'static str,
    scenario: Scenario,
    target: Target,
}

enum Target {
    /// Times the rate of mosquitto.
    AtLeast(f64),
    /// Bytes.
    AtMost(f64),
}

const fn goal(name: &'static str, scenario: Scenario, target: Target) -> Goal {
    Goal {
        name,
        scenario,
        target,
    }
}

const GOALS: [Goal; 6] = [
    goal(
        "connect",
        Scenario::Connect { sockets: 128 },
        Target::AtLeast(0.7),
    ),
    goal(
        "pairs-qos0",
        Scenario::Pairs { pairs: 50, qos: 0 },
        Target::AtLeast(7.0),
    ),
    goal(
        "pairs-qos1",
        Scenario::Pairs { pairs: 50, qos: 1 },
        Target::AtLeast(8.0),
    ),
    goal(
        "fanin-qos0",
        Scenario::Fanin {
            publishers: 50,
            qos: 0,
        },
        Target::AtLeast(4.0),
    ),
    goal(
        "fanout-qos0",
        Scenario::Fanout {
            subscribers: 200,
            qos: 0,
        },
        Target::AtLeast(8.0),
    ),
    goal(
        "idle",
        Scenario::Idle { sessions: 15_000 },
        Target::AtMost(4096.0),
    ),
];

/// Returns whether all runs were sound. A goal that is not reached is a finding, not a failure.
pub(crate) fn run(rounds: usize, only: &str, time: Duration, json: bool) -> anyhow::Result<bool> {
    let mut sound = true;
    let mut lines = Vec::new();
    for Goal {
        name,
        scenario,
        target,
    } in GOALS.iter().filter(|goal| goal.name.contains(only))
    {
        let (mut ours, mut theirs): (Vec<Report>, Vec<Report>) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            for (kind, reports) in [(Kind::Rollcall, &mut ours), (Kind::Mosquitto, &mut theirs)] {
                eprintln!("{name}, round {round} of {rounds}: {kind}");
                let broker = Broker::start(kind, scenario.things(), scenario.channels())?;
                let report = scenario.run(&broker, time)?;
                sound &= report.is_sound();
                report.print(json);
                reports.push(report);
            }
        }
        lines.push(summary(name, target, &ours, &theirs, json));
    }
    if !json {
        println!(
            "\n{:<12} {:>12} {:>23} {:>12} {:>23} {:>7} {:>8}",
            "scenario", "rollcall", "(spread)", "mosquitto", "(spread)", "ratio", "goal"
        );
    }
    for line in lines {
        println!("{line}");
    }
    Ok(sound)
}

fn summary(name: &str, target: &Target, ours: &[Report], theirs: &[Report], json: bool) -> String {
    let (our, their) = (Spread::of(ours), Spread::of(theirs));
    let ratio = our.median / their.median;
    let (goal, reached) = match target {
        Target::AtLeast(least) => (format!(">={least}"), ratio >= *least),
        Target::AtMost(most) => (format!("<={most}"), our.median <= *most),
    };
    let drained = ours
        .iter()
        .filter_map(|report| report.drained)
        .fold(None, |most, seconds| {
            Some(f64::max(seconds, most.unwrap_or(0.0)))
        });
    if json {
        return json!({
            "summary": name, "rollcall": our.json(), "mosquitto": their.json(), "ratio": ratio,
            "goal": goal, "reached": reached, "drained_s": drained,
        })
        .to_string();
    }
    let drained = drained
        .map(|s| format!(", drained within {s:.1} s"))
        .unwrap_or_default();
    let verdict = if reached { "reached" } else { "missed" };
    let spread = |it: &Spread| format!("({:.0}-{:.0})", it.least, it.most);
    format!(
        "{name:<12} {:>12.0} {:>23} {:>12.0} {:>23} {ratio:>7.2} {goal:>8} {verdict}{drained}",
        our.median,
        spread(&our),
        their.median,
        spread(&their),
    )
}

struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(reports: &[Report]) -> Self {
        let mut values: Vec<f64> = reports.iter().map(|report| report.value).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Self {
            least: values[0],
            median,
            most: values[values.len() - 1],
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({ "least": self.least, "median": self.median, "most": self.most })
    }
}
