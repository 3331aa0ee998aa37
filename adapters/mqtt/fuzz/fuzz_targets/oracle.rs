//! The same bytes for another codec: what we take for a packet of MQTT 3.1.1 it takes for the same one.
//! `cargo +nightly fuzz run oracle`

#![no_main]

#[path = "../../tests/support/oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| oracle::compare(bytes));
