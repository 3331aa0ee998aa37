//! Load on the whole program, side by side with mosquitto. `benches/README.md` says how to read it.

mod backlog;
mod broker;
mod compare;
mod costs;
mod flow;
mod idle;
mod ledger;
mod link;
mod mqtt;
mod process;
mod report;
mod storm;

use anyhow::{Result, ensure};
use broker::Kind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use flow::Shape;
use report::Report;
use serde::Serialize;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(name = "load", bin_name = "cargo bench --bench load --", about)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The broker under load; `compare` takes both.
    #[arg(long, global = true, value_enum, default_value = "rollcall")]
    broker: Kind,
    /// How long a figure is taken.
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Idle sessions. This tool and the broker have a file open for each.
    #[arg(long, global = true, default_value_t = 15_000)]
    sessions: usize,
    /// Print JSON, an object a line.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// 96 sockets that connect, get their CONNACK, disconnect and close, again and again.
    Connect,
    /// 50 publishers, each with a subscriber of its own.
    Pairs {
        /// Quality of service of messages and subscriptions.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
        qos: u8,
    },
    /// 50 publishers, one subscriber.
    Fanin,
    /// One publisher, 200 subscribers.
    Fanout,
    /// Sessions that only sit there, each with a subscription.
    Idle,
    /// What presence costs: connects with and without it in turn, and how late events are in Redis.
    Costs {
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
        rounds: u8,
    },
    /// Catching up after an outage of Redis: a journal with a backlog, how fast it goes out, what memory it takes.
    Backlog {
        #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1_000..=15_000_000))]
        events: u64,
    },
    /// Rollcall and mosquitto in turn, medians, and the goals.
    Compare {
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
        rounds: u8,
        /// Some of the scenarios, separated by commas; all if left out.
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<Scenario>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scenario {
    Connect,
    Pairs0,
    Pairs1,
    Fanin,
    Fanout,
    Idle,
}

impl Scenario {
    fn run(self, kind: Kind, span: Duration, sessions: usize) -> Result<Report> {
        match self {
            Self::Connect => storm::run(kind, span),
            Self::Pairs0 => flow::run(Shape::pairs(0), kind, span),
            Self::Pairs1 => flow::run(Shape::pairs(1), kind, span),
            Self::Fanin => flow::run(Shape::fan_in(), kind, span),
            Self::Fanout => flow::run(Shape::fan_out(), kind, span),
            Self::Idle => idle::run(kind, sessions),
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // `cargo bench` adds `--bench`; `cargo test` and nextest ask for tests, of which there are none.
    let arguments: Vec<String> = std::env::args()
        .filter(|argument| argument != "--bench")
        .collect();
    if arguments
        .iter()
        .any(|argument| argument == "--test" || argument == "--list")
    {
        return Ok(());
    }
    let Cli {
        command,
        broker,
        seconds,
        sessions,
        json,
    } = Cli::parse_from(arguments);
    let span = Duration::from_secs(seconds);
    let scenario = match command {
        None => return Ok(Cli::command().print_help()?),
        Some(Command::Compare { rounds, only }) => {
            let scenarios = if only.is_empty() {
                Scenario::value_variants()
            } else {
                &only
            };
            let sound = compare::run(scenarios, rounds.into(), span, sessions, json)?;
            ensure!(sound, "not all runs were sound");
            return Ok(());
        }
        Some(Command::Costs { rounds }) => {
            ensure!(
                costs::run(rounds.into(), span, json)?,
                "not all runs were sound"
            );
            return Ok(());
        }
        Some(Command::Backlog { events }) => return show(&backlog::run(events)?, json),
        Some(Command::Connect) => Scenario::Connect,
        Some(Command::Pairs { qos: 0 }) => Scenario::Pairs0,
        Some(Command::Pairs { .. }) => Scenario::Pairs1,
        Some(Command::Fanin) => Scenario::Fanin,
        Some(Command::Fanout) => Scenario::Fanout,
        Some(Command::Idle) => Scenario::Idle,
    };
    let report = scenario.run(broker, span, sessions)?;
    show(&report, json)?;
    ensure!(!report.faults.any(), "the run was not sound");
    Ok(())
}

fn show(finding: &(impl Serialize + Display), json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(finding)?);
    } else {
        println!("{finding}");
    }
    Ok(())
}
