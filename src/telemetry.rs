//! What the program says of itself while it runs.

use rollcall_domain::setting::choice;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(deserialize_with = "choice")]
    pub format: Format,
    pub filter: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Text,
    Json,
}

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("wrong configuration: log.filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("cannot set up the log")]
    Taken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Logs to standard error from now on.
///
/// # Errors
/// The filter cannot be read, or something logs already.
pub fn init(config: &Config) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&config.filter)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.format {
        Format::Text => log
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        Format::Json => log.json().try_init(),
    }
    .map_err(LogError::Taken)
}
