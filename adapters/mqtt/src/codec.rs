//! Bytes to packets and back: strict, borrowing, without allocation.
//!
//! Section numbers and clauses are those of MQTT 5.0 (`MQTT5-…`) and MQTT 3.1.1 (`MQTT-…`), OASIS standards.

mod fault;
mod properties;
mod read;
mod wire;
mod write;

pub use fault::{Fault, refusal};
pub use read::{decode, frame_len};
pub(crate) use wire::{put_variable, variable, variable_len};
pub use write::{
    ConnackProperties, DisconnectProperties, OutgoingPublish, ack, ack_because, connack,
    disconnect, pingresp, publish, suback, subscription_identifier, topic_alias, unsuback,
};
