//! The MQTT edge: codec, connections, sessions, routing.
//!
//! A few threads own the sockets and the sessions ([`worker`]); what they say to each other, to the journal
//! and to the things service goes through letter boxes ([`inbox`]). One client's way through the rooms:
//! `worker` reads, [`codec`] tells packets, [`admission`] lets in, [`inbound`] takes what the client sends,
//! [`delivery`] what is sent to it, [`revocation`] takes away what others say, [`departure`] sees it out.

mod admission;
mod agenda;
mod aliases;
mod certificates;
pub mod codec;
mod config;
mod connack;
mod connection;
mod delivery;
mod departure;
mod directory;
mod drain;
mod front;
mod gate;
mod groups;
mod handshake;
mod inbound;
mod inbox;
mod keeping;
mod limits;
mod listener;
mod message;
mod metrics;
mod outbox;
pub mod packet;
mod pending;
mod principal;
mod proxy;
mod reason;
mod replaying;
mod restoring;
mod retained;
mod revocation;
mod rounds;
mod route;
mod router;
mod session;
mod sharing;
mod shedding;
mod sockets;
mod storm;
mod subscribing;
mod sys;
mod throttle;
mod timers;
mod tls;
mod transport;
mod websocket;
mod wills;
mod window;
mod worker;

pub use config::{AccessMode, Address, Config, Durability};
pub use front::{Front, Handle, StartError};
pub use limits::{Limits, MemoryMark, RateAction};
pub use listener::ListenerError;
