//! Load on the whole program, side by side with mosquitto. `benches/README.md` says how to read it.

mod broker;
mod flow;
mod ledger;
mod link;
mod mqtt;
mod process;
mod report;

use anyhow::{Result, ensure};
use broker::Kind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use flow::Shape;
use report::Report;
use std::time::Duration;

#[derive(Parser)]
#[command(name = "load", bin_name = "cargo bench --bench load --", about)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print JSON, an object a line.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// 50 publishers, each with a subscriber of its own.
    Pairs {
        /// Quality of service of messages and subscriptions.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
        qos: u8,
        #[command(flatten)]
        run: Run,
    },
    /// 50 publishers, one subscriber.
    Fanin(Run),
    /// One publisher, 200 subscribers.
    Fanout(Run),
}

#[derive(Args, Clone, Copy)]
struct Run {
    #[arg(long, value_enum, default_value = "rollcall")]
    broker: Kind,
    /// How long the figure is taken.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

impl Run {
    fn span(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn main() -> Result<()> {
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
    let cli = Cli::parse_from(arguments);
    let Some(command) = cli.command else {
        return Ok(Cli::command().print_help()?);
    };
    let report = match command {
        Command::Pairs { qos, run } => flow::run(Shape::pairs(qos), run.broker, run.span())?,
        Command::Fanin(run) => flow::run(Shape::fan_in(), run.broker, run.span())?,
        Command::Fanout(run) => flow::run(Shape::fan_out(), run.broker, run.span())?,
    };
    show(&report, cli.json)?;
    ensure!(
        !report.faults.any(),
        "messages were lost, repeated or refused"
    );
    Ok(())
}

fn show(report: &Report, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
