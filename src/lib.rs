//! rollcall: an MQTT front that keeps a truthful roll of who is connected.
//!
//! [`server`] opens the edges (`adapters/`) and joins them to the domain (`src/domain`); [`cli`] talks to
//! a server that runs; [`config`] says what can be set.

pub mod cli;
pub mod config;
mod demo;
mod hashing;
pub mod secrets;
pub mod server;
pub mod telemetry;
