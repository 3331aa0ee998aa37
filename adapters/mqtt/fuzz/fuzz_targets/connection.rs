//! Scripts of packets, right and wrong, for several clients of one front: nobody panics, hangs or keeps another
//! one from being served. `cargo +nightly fuzz run connection`

#![no_main]

#[path = "../../tests/support/lab.rs"]
mod lab;
#[path = "../../tests/support/table.rs"]
#[allow(dead_code, reason = "only its bytes are of interest here")]
mod table;

use std::sync::Mutex;

use libfuzzer_sys::fuzz_target;

static LAB: Mutex<Option<lab::Lab>> = Mutex::new(None);

fuzz_target!(|script: &[u8]| {
    let mut lab = LAB.lock().expect("no panic");
    lab.get_or_insert_with(lab::Lab::open).play(script);
});
