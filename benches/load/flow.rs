//! Messages through the broker at full speed: one thread, one poll, a window for every publisher.
//!
//! The loop is closed: a publisher has at most [`ledger::WINDOW`] messages on their way, so no broker is
//! driven into dropping and the figure is a rate without loss. With many subscribers the window counts
//! deliveries: as many as that number of messages has.

use crate::broker::{Broker, Kind, Needs};
use crate::ledger::Ledger;
use crate::link::{self, Filled, Link, Wanted};
use crate::mqtt::{self, Packet, Template};
use crate::process::CpuTime;
use crate::report::{Latency, Report};
use anyhow::Result;
use mio::{Events, Interest, Poll, Token};
use std::io::Write;
use std::time::{Duration, Instant};

const PAYLOAD_BYTES: usize = 100;
const BUFFER_BYTES: usize = 256 * 1024;
const WARM_UP: Duration = Duration::from_secs(1);

/// After the last arrival so long ago nothing more is expected.
const SILENCE: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(50);

/// Who talks to whom, all at one quality of service.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    /// Every pair has a channel of its own; otherwise all share one.
    pub(crate) in_pairs: bool,
    pub(crate) qos: u8,
}

impl Shape {
    pub(crate) fn pairs(qos: u8) -> Self {
        let name = if qos == 0 {
            "pairs qos 0"
        } else {
            "pairs qos 1"
        };
        Self {
            name,
            publishers: 50,
            subscribers: 50,
            in_pairs: true,
            qos,
        }
    }

    pub(crate) fn fan_in() -> Self {
        Self {
            name: "fanin",
            publishers: 50,
            subscribers: 1,
            in_pairs: false,
            qos: 0,
        }
    }

    pub(crate) fn fan_out() -> Self {
        Self {
            name: "fanout",
            publishers: 1,
            subscribers: 200,
            in_pairs: false,
            qos: 0,
        }
    }

    fn needs(self) -> Needs {
        let channels = if self.in_pairs { self.publishers } else { 1 };
        Needs {
            things: self.subscribers + self.publishers,
            channels,
            storm: false,
            settings: &[],
        }
    }

    fn audience(self) -> u64 {
        if self.in_pairs {
            1
        } else {
            self.subscribers as u64
        }
    }
}

/// Runs the shape for `span`, after a second of warming up.
pub(crate) fn run(shape: Shape, kind: Kind, span: Duration) -> Result<Report> {
    let broker = Broker::start(kind, shape.needs())?;
    let mut flow = Flow::open(shape, &broker)?;
    flow.drive(WARM_UP)?;

    let cpu = CpuTime::now(broker.process_id())?;
    let (begin, delivered) = (Instant::now(), flow.ledger.delivered);
    flow.ledger.latency.reset();
    flow.drive(span)?;
    let elapsed = begin.elapsed();
    let cpu = CpuTime::now(broker.process_id())?.since(cpu);
    let delivered = flow.ledger.delivered - delivered;
    let latency = Latency::of(&flow.ledger.latency);

    flow.settle()?;
    let faults = flow.close();
    let report = Report::rate(
        shape.name,
        kind,
        "messages/s",
        delivered,
        elapsed,
        cpu,
        faults,
    );
    Ok(Report {
        latency: Some(latency),
        ..report
    })
}

/// Sessions at work: subscribers first, then publishers.
struct Flow {
    poll: Poll,
    events: Events,
    links: Vec<Link>,
    subscribers: usize,
    templates: Vec<Template>,
    ledger: Ledger,
    buffer: Vec<u8>,
    turn: Vec<usize>,
    clock: Instant,
    last_arrival: Instant,
}

impl Flow {
    fn open(shape: Shape, broker: &Broker) -> Result<Self> {
        let (subscribers, publishers) = broker.guests.split_at(shape.subscribers);
        let listening = subscribers.iter().enumerate().map(|(index, guest)| Wanted {
            client_id: format!("subscriber-{index}"),
            guest,
            filter: Some((guest.topic(), shape.qos)),
        });
        let speaking = publishers.iter().enumerate().map(|(index, guest)| Wanted {
            client_id: format!("publisher-{index}"),
            guest,
            filter: None,
        });
        let wanted: Vec<_> = listening.chain(speaking).collect();

        let poll = Poll::new()?;
        let mut links = Vec::with_capacity(wanted.len());
        for stream in link::open(broker, &wanted)? {
            let mut link = Link::new(stream)?;
            let token = Token(links.len());
            poll.registry().register(
                &mut link.stream,
                token,
                Interest::READABLE | Interest::WRITABLE,
            )?;
            links.push(link);
        }
        let templates = (0..)
            .zip(publishers)
            .map(|(index, guest)| Template::new(&guest.topic(), shape.qos, index, PAYLOAD_BYTES))
            .collect();
        let acknowledged = shape.qos > 0;
        Ok(Self {
            poll,
            events: Events::with_capacity(512),
            links,
            subscribers: shape.subscribers,
            templates,
            ledger: Ledger::new(
                shape.publishers,
                shape.subscribers,
                shape.audience(),
                acknowledged,
            ),
            buffer: vec![0; BUFFER_BYTES],
            turn: Vec::with_capacity(shape.publishers),
            clock: Instant::now(),
            last_arrival: Instant::now(),
        })
    }

    /// Publishes and receives for `span`.
    fn drive(&mut self, span: Duration) -> Result<()> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.publish();
            self.receive()?;
        }
        Ok(())
    }

    /// Receives what is still on its way.
    fn settle(&mut self) -> Result<()> {
        while !self.ledger.is_settled() && self.last_arrival.elapsed() < SILENCE {
            self.receive()?;
        }
        Ok(())
    }

    fn close(mut self) -> crate::report::Faults {
        for link in &mut self.links {
            // The broker may have hung up already: then there is nobody to say goodbye to.
            let _ = link.stream.write(&mqtt::DISCONNECT);
        }
        let (_, faults) = self.ledger.close();
        faults
    }

    /// Fills the windows that have room.
    fn publish(&mut self) {
        self.ledger.take_ready(&mut self.turn);
        let nanos = self.clock.elapsed().as_nanos() as u64;
        for publisher in self.turn.drain(..) {
            let link = &mut self.links[self.subscribers + publisher];
            if link.is_blocked() {
                continue;
            }
            for _ in 0..self.ledger.room(publisher) {
                let sequence = self.ledger.send(publisher);
                self.templates[publisher].write(&mut link.outbox, nanos, sequence);
            }
            link.flush();
        }
    }

    /// Waits for something to happen, and deals with all that has.
    fn receive(&mut self) -> Result<()> {
        self.poll.poll(&mut self.events, Some(TICK))?;
        let Self {
            events,
            links,
            ledger,
            buffer,
            subscribers,
            clock,
            last_arrival,
            ..
        } = self;
        for event in events.iter() {
            let index = event.token().0;
            let link = &mut links[index];
            if event.is_writable() && link.is_blocked() {
                link.flush();
                if !link.is_blocked() && index >= *subscribers {
                    ledger.wake(index - *subscribers);
                }
            }
            if !event.is_readable() {
                continue;
            }
            loop {
                let (filled, dry) = match link.fill(buffer) {
                    Filled::More(bytes) => (bytes, false),
                    Filled::Dry(bytes) => (bytes, !event.is_read_closed()),
                    Filled::Closed => {
                        ledger.faults.closed += 1;
                        break;
                    }
                };
                *last_arrival = Instant::now();
                let now = (*last_arrival - *clock).as_nanos() as u64;
                read_packets(&buffer[..filled], index, *subscribers, link, ledger, now)?;
                if dry {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Notes every packet in `bytes`, and answers those that want an answer.
fn read_packets(
    bytes: &[u8],
    index: usize,
    subscribers: usize,
    link: &mut Link,
    ledger: &mut Ledger,
    now: u64,
) -> Result<()> {
    let mut rest = bytes;
    while let Some((packet, length)) = mqtt::next(rest)? {
        rest = &rest[length..];
        match packet {
            Packet::Publish { label, id } if index < subscribers => {
                ledger.deliver(index, label, now);
                if let Some(id) = id {
                    mqtt::puback(&mut link.outbox, id);
                }
            }
            Packet::Puback { id } if index >= subscribers => {
                ledger.acknowledge(index - subscribers, id)
            }
            _ => ledger.faults.strange += 1,
        }
    }
    ledger.end_burst(now);
    link.keep(rest);
    if link.is_blocked() {
        link.flush();
    }
    Ok(())
}
