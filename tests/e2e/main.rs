//! The whole program, run as its users run it: the real binary, real sockets, a real Redis.

mod aliases;
mod client;
mod clients;
mod conformance;
mod connect;
mod edges;
mod faults;
mod following;
mod identifiers;
mod journal;
mod kick;
mod leaks;
mod limits;
mod listeners;
mod messaging;
mod mqtt31;
mod observe;
mod open;
mod options;
mod ordering;
mod presence;
mod provisioning;
mod proxy;
mod redis_server;
mod relay;
mod revocation;
mod roll;
mod script;
mod secrets;
mod sessions;
mod sharing;
mod storms;
#[path = "../../adapters/mqtt/tests/support/table.rs"]
mod table;
mod terms;
mod world;
