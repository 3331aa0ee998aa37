//! What a session costs that does nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::ensure;

use crate::broker::Broker;
use crate::report::Report;
use crate::wire::{self, WELCOME};

/// Sockets to one address, well below the number of ports.
const PER_ADDRESS: usize = 10_000;

pub(crate) fn run(broker: &Broker, sessions: usize) -> anyhow::Result<Report> {
    let before = broker.resident()?;
    let mut clients = Vec::with_capacity(sessions);
    for n in 0..sessions {
        let last = (n / PER_ADDRESS) as u8 + 1;
        let address: SocketAddr = (Ipv4Addr::new(127, 0, 0, last), broker.address.port()).into();
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(&wire::connect(&format!("idle-{n}"), broker.login(n)))?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack)?;
        ensure!(connack == WELCOME, "session {n} is refused: {connack:?}");
        stream.write_all(&wire::subscribe(&broker.topic(n), 1))?;
        let mut suback = [0; 5];
        stream.read_exact(&mut suback)?;
        ensure!(suback[4] < 0x80, "subscription {n} is refused");
        clients.push(stream);
    }
    // What was needed to let them in may be given back.
    std::thread::sleep(Duration::from_secs(2));
    let after = broker.resident()?;
    Ok(Report {
        scenario: "idle".to_owned(),
        broker: broker.name.clone(),
        unit: "bytes/session",
        value: after.saturating_sub(before) as f64 / sessions as f64,
        ..Report::default()
    })
}
