//! The program: arguments, configuration, signals, exit code.

use std::process::ExitCode;

use clap::Parser;
use rollcall::cli::{self, Arguments};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(cli::run(arguments)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain(&error, json);
            ExitCode::FAILURE
        }
    }
}
