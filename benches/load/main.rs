//! The load tool: storms of logins, streams of messages and many idle sessions against a running broker.
//!
//! `cargo bench --bench load -- help` tells how; benches/README.md what the numbers mean.

mod broker;
mod compare;
mod flow;
mod idle;
mod report;
mod storm;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use broker::{Broker, Kind};
use flow::Shape;
use report::Report;

#[derive(Parser)]
#[command(name = "load", about = "Measures brokers on this machine")]
struct Arguments {
    /// Given by cargo
    #[arg(long, hide = true, global = true)]
    bench: bool,
    /// One JSON object a line
    #[arg(long, global = true)]
    json: bool,
    /// How long each run measures, in seconds
    #[arg(long, global = true, default_value_t = 5.0)]
    seconds: f64,
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    scenario: Option<Scenario>,
}

#[derive(Args)]
struct Target {
    /// Which broker to start
    #[arg(long, global = true, default_value = "rollcall")]
    broker: Kind,
    /// A broker that runs already
    #[arg(long, global = true, value_name = "HOST:PORT")]
    address: Option<SocketAddr>,
    /// Things for it: thing_id,thing_key,channel_id
    #[arg(long, global = true, value_name = "CSV", requires = "address")]
    credentials: Option<PathBuf>,
}

#[derive(Clone, Subcommand)]
enum Scenario {
    /// Sessions that come and go: CONNECT, CONNACK, DISCONNECT
    Connect {
        /// Sockets at one time
        #[arg(long, default_value_t = 128)]
        sockets: usize,
    },
    /// Publishers with a subscriber each
    Pairs {
        #[arg(long, default_value_t = 50)]
        pairs: usize,
        #[arg(long, default_value_t = 0)]
        qos: u8,
    },
    /// Many publishers, one subscriber
    Fanin {
        #[arg(long, default_value_t = 50)]
        publishers: usize,
        #[arg(long, default_value_t = 0)]
        qos: u8,
    },
    /// One publisher, many subscribers
    Fanout {
        #[arg(long, default_value_t = 200)]
        subscribers: usize,
        #[arg(long, default_value_t = 0)]
        qos: u8,
    },
    /// Sessions with one subscription each that do nothing
    Idle {
        #[arg(long, default_value_t = 15_000)]
        sessions: usize,
    },
    /// All of these, rollcall and mosquitto in turn, with medians and ratios
    Compare {
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Only scenarios whose name contains this
        #[arg(long, default_value = "")]
        only: String,
    },
}

impl Scenario {
    /// Things that take part.
    const fn things(&self) -> usize {
        match *self {
            Self::Connect { sockets } => sockets,
            Self::Pairs { pairs, .. } => 2 * pairs,
            Self::Fanin { publishers, .. } => publishers + 1,
            Self::Fanout { subscribers, .. } => subscribers + 1,
            Self::Idle { sessions } => sessions,
            Self::Compare { .. } => 0,
        }
    }

    /// Channels that the things share.
    const fn channels(&self) -> usize {
        match *self {
            Self::Pairs { pairs, .. } => pairs,
            _ => 1,
        }
    }

    fn run(&self, broker: &Broker, time: Duration) -> anyhow::Result<Report> {
        let shape = |publishers, subscribers, qos| Shape {
            publishers,
            subscribers,
            qos,
        };
        match *self {
            Self::Connect { sockets } => storm::run(broker, sockets, time),
            Self::Pairs { pairs, qos } => flow::run(broker, shape(pairs, pairs, qos), time),
            Self::Fanin { publishers, qos } => flow::run(broker, shape(publishers, 1, qos), time),
            Self::Fanout { subscribers, qos } => {
                flow::run(broker, shape(1, subscribers, qos), time)
            }
            Self::Idle { sessions } => idle::run(broker, sessions),
            Self::Compare { .. } => unreachable!("invariant: not one run"),
        }
    }
}

fn main() -> ExitCode {
    // `cargo bench` without arguments runs every bench: this one is too long to run unasked.
    let arguments = Arguments::parse();
    let Some(scenario) = &arguments.scenario else {
        println!("load: choose a scenario, for example: cargo bench --bench load -- compare");
        return ExitCode::SUCCESS;
    };
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        eprintln!("load: cannot raise the number of open files: {error}");
    }
    match run(&arguments, scenario) {
        Ok(sound) if sound => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether nothing was lost, doubled or out of order.
fn run(arguments: &Arguments, scenario: &Scenario) -> anyhow::Result<bool> {
    let time = Duration::from_secs_f64(arguments.seconds);
    if let Scenario::Compare { rounds, only } = scenario {
        return compare::run(*rounds, only, time, arguments.json);
    }
    let target = &arguments.target;
    let broker = match (target.address, &target.credentials) {
        (Some(address), credentials) => Broker::running(address, credentials.as_deref())?,
        (None, _) => Broker::start(target.broker, scenario.things(), scenario.channels())
            .with_context(|| format!("cannot start {}", target.broker))?,
    };
    let report = scenario.run(&broker, time)?;
    report.print(arguments.json);
    Ok(report.is_sound())
}
