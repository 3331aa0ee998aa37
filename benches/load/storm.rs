//! A storm of short sessions: connect, CONNACK, DISCONNECT, close, and again.

use crate::broker::{Broker, Kind, Needs, Redis};
use crate::mqtt::{self, Packet};
use crate::process::CpuTime;
use crate::report::{Faults, Latency, Report};
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

/// As many as fit into mosquitto's queue of connections to accept (100): one more, and the kernel drops
/// attempts, which come again a second later.
const SOCKETS: usize = 96;
const THINGS: usize = 1_000;
const CHANNELS: usize = 10;
const TICK: Duration = Duration::from_millis(20);

/// Sessions still without a CONNACK so long after the storm count as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Redis gets this long to have all events, far beyond the goal, so that a miss has a figure too.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
const EVENTS_PER_CYCLE: u64 = 2;
/// What comes before the number of a session in the name of its client.
pub(crate) const NAME_PREFIX: &str = "storm-";

/// Runs the storm for `span`, and then waits until Redis has the events of all its sessions.
pub(crate) fn run(kind: Kind, span: Duration) -> Result<Report> {
    run_with(kind, span, &[], EVENTS_PER_CYCLE)
}

/// The same with other `settings` of rollcall, which then announces so many events of a session.
pub(crate) fn run_with(
    kind: Kind,
    span: Duration,
    settings: &'static [(&'static str, &'static str)],
    events_per_cycle: u64,
) -> Result<Report> {
    let broker = start(kind, settings)?;
    let mut storm = Storm::new(&broker)?;

    let cpu = CpuTime::now(broker.process_id())?;
    let begin = Instant::now();
    storm.rage(begin + span)?;
    let elapsed = begin.elapsed();
    let cpu = CpuTime::now(broker.process_id())?.since(cpu);
    let cycles = storm.cycles;
    storm.calm_down()?;

    let mut drain_seconds = None;
    if let Some(redis) = &broker.redis {
        let expected = storm.cycles * events_per_cycle;
        let (seconds, events) = drain(redis, expected)?;
        drain_seconds = Some(seconds);
        storm.faults.events_wrong = events.abs_diff(expected);
    }
    let latency = Latency::of(&storm.latency);
    let report = Report::rate(
        "connect",
        kind,
        "cycles/s",
        cycles,
        elapsed,
        cpu,
        storm.faults,
    );
    Ok(Report {
        latency: Some(latency),
        drain_seconds,
        ..report
    })
}

/// A broker for a storm.
pub(crate) fn start(
    kind: Kind,
    settings: &'static [(&'static str, &'static str)],
) -> Result<Broker> {
    Broker::start(
        kind,
        Needs {
            things: THINGS,
            channels: CHANNELS,
            storm: true,
            settings,
        },
    )
}

/// Waits for `expected` presence events: how long it took, and how many there are.
fn drain(redis: &Redis, expected: u64) -> Result<(f64, u64)> {
    const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
    let mut presence_events = redis.presence_events()?;
    let begin = Instant::now();
    loop {
        let events = presence_events().context("cannot count events in Redis")?;
        let waited = begin.elapsed();
        if events >= expected || waited > DRAIN_TIMEOUT {
            return Ok((waited.as_secs_f64(), events));
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// A thing's CONNECT, in which only the number in the client identifier changes.
struct Knock {
    bytes: Vec<u8>,
    number_at: usize,
}

impl Knock {
    const NUMBER_AT_IN_NAME: usize = NAME_PREFIX.len();
    const NAME: &str = "storm-00000000";

    fn new(login: Option<mqtt::Login<'_>>) -> Self {
        let bytes = mqtt::connect(Self::NAME, login);
        let name_at = bytes
            .windows(Self::NAME.len())
            .position(|part| part == Self::NAME.as_bytes());
        let number_at =
            name_at.expect("invariant: a CONNECT names its client") + Self::NUMBER_AT_IN_NAME;
        Self { bytes, number_at }
    }

    fn numbered(&mut self, mut number: usize) -> &[u8] {
        let digits = Self::NAME.len() - Self::NUMBER_AT_IN_NAME;
        for digit in self.bytes[self.number_at..self.number_at + digits]
            .iter_mut()
            .rev()
        {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        &self.bytes
    }
}

/// A session between its connect and its CONNACK.
struct Visit {
    stream: TcpStream,
    number: usize,
    began: Instant,
    has_knocked: bool,
}

pub(crate) struct Storm<'a> {
    broker: &'a Broker,
    poll: Poll,
    events: Events,
    knocks: Vec<Knock>,
    visits: Vec<Option<Visit>>,
    idle: Vec<usize>,
    next_number: usize,
    cycles: u64,
    latency: Histogram<u64>,
    pub(crate) faults: Faults,
    /// Who got a CONNACK, by the number in the name, and when; kept if somebody wants to know.
    pub(crate) welcomed: Option<Vec<(usize, Instant)>>,
}

impl<'a> Storm<'a> {
    pub(crate) fn new(broker: &'a Broker) -> Result<Self> {
        Ok(Self {
            broker,
            poll: Poll::new()?,
            welcomed: None,
            events: Events::with_capacity(SOCKETS),
            knocks: broker
                .guests
                .iter()
                .map(|guest| Knock::new(guest.login()))
                .collect(),
            visits: (0..SOCKETS).map(|_| None).collect(),
            idle: (0..SOCKETS).collect(),
            next_number: 0,
            cycles: 0,
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 2)?,
            faults: Faults::default(),
        })
    }

    /// Keeps every socket busy until `end`.
    fn rage(&mut self, end: Instant) -> Result<()> {
        while Instant::now() < end {
            while let Some(slot) = self.idle.pop() {
                self.begin(slot)?;
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Has `rate` sessions a second begin, whatever becomes of the earlier ones. Returns how many did.
    pub(crate) fn blow(&mut self, end: Instant, rate: u32) -> Result<u64> {
        let begin = Instant::now();
        let mut begun = 0;
        while Instant::now() < end {
            let due = begin.elapsed().as_secs_f64() * f64::from(rate);
            while begun < due as u64
                && let Some(slot) = self.idle.pop()
            {
                self.begin(slot)?;
                begun += 1;
            }
            self.turn_within(Duration::from_millis(1))?;
        }
        Ok(begun)
    }

    /// Lets the sessions under way come to their end.
    pub(crate) fn calm_down(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.idle.len() < SOCKETS && Instant::now() < end {
            self.turn()?;
        }
        self.faults.closed += (SOCKETS - self.idle.len()) as u64;
        Ok(())
    }

    fn begin(&mut self, slot: usize) -> Result<()> {
        let began = Instant::now();
        let mut stream = self.dial()?;
        let number = self.next_number;
        let has_knocked = knock(&mut stream, &mut self.knocks, number);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(slot), interest)?;
        self.visits[slot] = Some(Visit {
            stream,
            number,
            began,
            has_knocked,
        });
        Ok(())
    }

    /// Connects to the next address that has a port left: the ports of closed sessions rest for a while.
    fn dial(&mut self) -> Result<TcpStream> {
        const ATTEMPTS: usize = 1_000;
        for _ in 0..ATTEMPTS {
            self.next_number += 1;
            match TcpStream::connect(self.broker.address(self.next_number)) {
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {}
                dialed => return dialed.context("cannot connect"),
            }
        }
        Err(io::Error::from(ErrorKind::AddrNotAvailable)).context("no port is left on any address")
    }

    fn turn(&mut self) -> Result<()> {
        self.turn_within(TICK)
    }

    fn turn_within(&mut self, patience: Duration) -> Result<()> {
        self.poll.poll(&mut self.events, Some(patience))?;
        for event in self.events.iter() {
            let slot = event.token().0;
            let Some(visit) = &mut self.visits[slot] else {
                continue;
            };
            if event.is_writable() && !visit.has_knocked {
                visit.has_knocked = knock(&mut visit.stream, &mut self.knocks, visit.number);
            }
            if !event.is_readable() && !event.is_error() {
                continue;
            }
            match answer(&mut visit.stream)? {
                Answer::None => continue,
                Answer::Welcome => {
                    // A broker that has hung up in between does not make the session less of one.
                    let _ = visit.stream.write(&mqtt::DISCONNECT);
                    self.latency
                        .saturating_record(visit.began.elapsed().as_nanos() as u64);
                    self.cycles += 1;
                    if let Some(welcomed) = &mut self.welcomed {
                        welcomed.push((visit.number, Instant::now()));
                    }
                }
                Answer::Refusal => self.faults.refused += 1,
                Answer::Closed => self.faults.closed += 1,
            }
            self.visits[slot] = None;
            self.idle.push(slot);
        }
        Ok(())
    }
}

/// Sends the CONNECT; false while the connection is not there yet. Failures show when it is read.
fn knock(stream: &mut TcpStream, knocks: &mut [Knock], number: usize) -> bool {
    let index = number % knocks.len();
    let written = stream.write(knocks[index].numbered(number));
    !matches!(written, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected))
}

enum Answer {
    None,
    Welcome,
    Refusal,
    Closed,
}

/// Reads the CONNACK: four bytes, which come as one segment.
fn answer(stream: &mut TcpStream) -> Result<Answer> {
    let mut bytes = [0; 16];
    match stream.read(&mut bytes) {
        Ok(0) => Ok(Answer::Closed),
        Ok(length) => match mqtt::next(&bytes[..length])? {
            Some((Packet::Connack { code: 0 }, _)) => Ok(Answer::Welcome),
            Some(_) => Ok(Answer::Refusal),
            None => Ok(Answer::Closed),
        },
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(Answer::None)
        }
        Err(_) => Ok(Answer::Closed),
    }
}
