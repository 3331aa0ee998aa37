//! Sessions that only sit there, each with a subscription: what memory one of them takes.

use crate::broker::{Broker, Kind, Needs};
use crate::link::{self, Wanted};
use crate::process;
use crate::report::{Faults, Report};
use anyhow::Result;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// The broker gets this long to give back what only the handshakes needed.
const HOLD: Duration = Duration::from_secs(2);
const SESSIONS_PER_CHANNEL: usize = 10;

/// Opens `sessions` and compares the broker's resident memory before and after.
pub(crate) fn run(kind: Kind, sessions: usize) -> Result<Report> {
    let channels = sessions.div_ceil(SESSIONS_PER_CHANNEL);
    let broker = Broker::start(
        kind,
        Needs {
            things: sessions,
            channels,
            storm: false,
            settings: &[],
        },
    )?;
    // A filter of its own for each: nobody's subscription is free because another has the same.
    let wanted: Vec<_> = (0..)
        .zip(&broker.guests)
        .map(|(index, guest)| Wanted {
            client_id: format!("idle-{index}"),
            guest,
            filter: Some((format!("{}/{index}", guest.topic()), 0)),
        })
        .collect();

    let before = process::resident_bytes(broker.process_id())?;
    let begin = Instant::now();
    let mut open = link::open(&broker, &wanted)?;
    let seconds = begin.elapsed().as_secs_f64();
    thread::sleep(HOLD);
    let after = process::resident_bytes(broker.process_id())?;

    let mut faults = Faults::default();
    for session in &mut open {
        if !is_alive(session)? {
            faults.closed += 1;
        }
    }
    Ok(Report {
        scenario: "idle",
        broker: kind,
        figure: after.saturating_sub(before) as f64 / sessions as f64,
        unit: "bytes/session",
        count: sessions as u64,
        seconds,
        cpu: None,
        latency: None,
        drain_seconds: None,
        faults,
    })
}

/// The broker has neither hung up nor said anything.
fn is_alive(session: &mut TcpStream) -> Result<bool> {
    session.set_nonblocking(true)?;
    let read = session.read(&mut [0]);
    Ok(matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock))
}
