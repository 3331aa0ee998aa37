//! Sessions that come and go, as fast as the broker lets them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::bail;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::broker::{Broker, cpu};
use crate::report::Report;
use crate::wire::{self, DISCONNECT, WELCOME};

/// Addresses that are connected to in turn: a closed connection keeps its pair of ports for a minute.
const ADDRESSES: u8 = 100;
/// How long the relay may take before the tool gives up on it.
const DRAIN: Duration = Duration::from_secs(60);

struct Client {
    stream: TcpStream,
    greeted: bool,
}

pub(crate) fn run(broker: &Broker, sockets: usize, time: Duration) -> anyhow::Result<Report> {
    let greetings: Vec<Vec<u8>> = (0..sockets)
        .map(|n| wire::connect(&format!("storm-{n}"), broker.login(n)))
        .collect();
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(sockets);
    let mut opened = 0u64;
    let mut clients = Vec::with_capacity(sockets);
    for n in 0..sockets {
        clients.push(open(broker, &poll, n, &mut opened)?);
    }
    let tool = std::process::id();
    let (broker_cpu, tool_cpu, begin) = (broker.cpu(), cpu(tool), Instant::now());
    let (mut cycles, mut refused) = (0u64, 0u64);
    while begin.elapsed() < time {
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        if events.is_empty() {
            bail!("the broker does not answer");
        }
        for event in &events {
            let Token(n) = event.token();
            let client = &mut clients[n];
            if event.is_writable() && !client.greeted {
                client.stream.write_all(&greetings[n])?;
                client.greeted = true;
            }
            if !event.is_readable() || !client.greeted {
                continue;
            }
            let mut connack = [0; 64];
            match client.stream.read(&mut connack) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Ok(4) if connack[..4] == WELCOME => {
                    client.stream.write_all(&DISCONNECT)?;
                    cycles += 1;
                }
                _ => refused += 1,
            }
            clients[n] = open(broker, &poll, n, &mut opened)?;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let (broker_cpu, tool_cpu) = (broker.cpu() - broker_cpu, cpu(tool) - tool_cpu);
    drop(clients);
    let drained = drain(broker, cycles)?;
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / cycles.max(1) as f64;
    Ok(Report {
        scenario: "connect".to_owned(),
        broker: broker.name.clone(),
        unit: "cycles/s",
        value: cycles as f64 / seconds,
        broker_micros: each(broker_cpu),
        tool_micros: each(tool_cpu),
        drained,
        refused,
        ..Report::default()
    })
}

fn open(broker: &Broker, poll: &Poll, n: usize, opened: &mut u64) -> anyhow::Result<Client> {
    let last = (*opened % u64::from(ADDRESSES)) as u8 + 1;
    *opened += 1;
    let address: SocketAddr = (Ipv4Addr::new(127, 0, 0, last), broker.address.port()).into();
    let mut stream = TcpStream::connect(address)?;
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut stream, Token(n), interest)?;
    Ok(Client {
        stream,
        greeted: false,
    })
}

/// Waits until every session is in the stream, with both events. Returns how long that took.
fn drain(broker: &Broker, cycles: u64) -> anyhow::Result<Option<f64>> {
    let begin = Instant::now();
    loop {
        // Some sessions began when the time was over already: they are in the stream as well.
        match broker.stream_len()? {
            None => return Ok(None),
            Some(len) if len as u64 >= 2 * cycles && settled(broker, len)? => {
                return Ok(Some(begin.elapsed().as_secs_f64()));
            }
            Some(len) if begin.elapsed() > DRAIN => {
                bail!("{cycles} sessions, but {len} events after {DRAIN:?}");
            }
            Some(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Whether the stream is of even length and no longer grows.
fn settled(broker: &Broker, len: usize) -> anyhow::Result<bool> {
    std::thread::sleep(Duration::from_millis(100));
    Ok(len.is_multiple_of(2) && broker.stream_len()? == Some(len))
}
