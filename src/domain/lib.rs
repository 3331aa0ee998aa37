//! What rollcall means: things and their keys, who may do what, who is here, and what is announced.
//!
//! Nothing in here knows a socket, a database or a runtime. The edges in `adapters/` translate between
//! this crate and the world, and `src/server.rs` joins them.

pub mod access;
pub mod attendance;
pub mod audit;
pub mod bootstrap;
pub mod caller;
pub mod entity;
pub mod event;
pub mod groups;
pub mod identity;
pub mod listing;
pub mod memory;
pub mod metadata;
pub mod origin;
pub mod policies;
pub mod ports;
pub mod presence;
pub mod refusal;
pub mod replay;
pub mod sessions;
pub mod setting;
pub mod things;
pub mod topic;
pub mod users;
pub mod vault;
