//! Messages from publishers to subscribers, with a bounded number under way.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::broker::{Broker, cpu};
use crate::report::Report;
use crate::wire::{self, Mark, Template, WELCOME};

/// Messages of one publisher that are sent and not delivered.
const WINDOW: u64 = 64;
const PAYLOAD: usize = 100;
/// Runs before it counts.
const WARM_UP: Duration = Duration::from_millis(500);
/// If nothing is delivered for so long, what is under way counts as lost.
const STALLED: Duration = Duration::from_secs(2);
const READ_BYTES: usize = 256 * 1024;

#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    pub(crate) qos: u8,
}

impl Shape {
    /// One subscriber to a publisher, or all to one, or one to all.
    const fn is_pairs(self) -> bool {
        self.publishers == self.subscribers
    }

    /// Subscribers that get a message.
    const fn copies(self) -> u64 {
        if self.is_pairs() {
            1
        } else {
            self.subscribers as u64
        }
    }

    fn name(self) -> String {
        let shape = match (self.publishers, self.subscribers) {
            (publishers, subscribers) if publishers == subscribers => "pairs",
            (1, _) => "fanout",
            _ => "fanin",
        };
        format!("{shape}-qos{}", self.qos)
    }

    /// The client, and so the topic, that the `n`th publisher uses: in pairs, that of its subscriber.
    fn topic_of(self, n: usize) -> usize {
        if self.is_pairs() { n } else { 0 }
    }
}

struct Publisher {
    wire: Wire,
    template: Template,
    sent: u64,
    /// Deliveries of its messages, to all subscribers together.
    delivered: u64,
    acknowledged: u64,
}

struct Subscriber {
    wire: Wire,
    /// The number of the next message of each publisher.
    expected: Vec<u32>,
}

/// A socket, what has come of a packet, and what could not be written yet.
struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    output: VecDeque<u8>,
}

pub(crate) fn run(broker: &Broker, shape: Shape, time: Duration) -> anyhow::Result<Report> {
    let mut load = Load::prepare(broker, shape)?;
    load.run(WARM_UP)?;
    let tool = std::process::id();
    load.latency.reset();
    let (broker_cpu, tool_cpu, before) = (broker.cpu(), cpu(tool), load.delivered);
    let begin = Instant::now();
    load.run(time)?;
    let seconds = begin.elapsed().as_secs_f64();
    let (broker_cpu, tool_cpu) = (broker.cpu() - broker_cpu, cpu(tool) - tool_cpu);
    let delivered = load.delivered - before;
    load.finish()?;
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / delivered.max(1) as f64;
    let millis = |quantile| load.latency.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Report {
        scenario: shape.name(),
        broker: broker.name.clone(),
        unit: if shape.copies() > 1 {
            "deliveries/s"
        } else {
            "messages/s"
        },
        value: delivered as f64 / seconds,
        broker_micros: each(broker_cpu),
        tool_micros: each(tool_cpu),
        latency: Some((millis(0.5), millis(0.99))),
        lost: load.lost,
        doubled: load.doubled,
        disordered: load.disordered,
        may_lose: shape.qos == 0,
        ..Report::default()
    })
}

struct Load {
    shape: Shape,
    poll: Poll,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    begin: Instant,
    /// Publishers that may have become able to send.
    ready: Vec<usize>,
    buffer: Vec<u8>,
    output: Vec<u8>,
    delivered: u64,
    lost: u64,
    doubled: u64,
    disordered: u64,
    latency: Histogram<u64>,
}

impl Load {
    fn prepare(broker: &Broker, shape: Shape) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut clients = 0;
        let mut log_in = |name: &str, login: usize, token: usize| -> anyhow::Result<Wire> {
            clients += 1;
            let mut wire = log_in(broker, &format!("{name}-{clients}"), login)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut wire.stream, Token(token), interest)?;
            Ok(wire)
        };
        let Shape {
            publishers,
            subscribers,
            qos,
        } = shape;
        let mut all = Vec::with_capacity(subscribers);
        for n in 0..subscribers {
            let mut wire = log_in("sub", n, publishers + n)?;
            let topic = broker.topic(shape.topic_of(n));
            subscribe(&mut wire, &wire::subscribe(&topic, qos))?;
            all.push(Subscriber {
                wire,
                expected: vec![0; publishers],
            });
        }
        let mut sources = Vec::with_capacity(publishers);
        for n in 0..publishers {
            let wire = log_in("pub", subscribers + n, n)?;
            let template = Template::new(&broker.topic(shape.topic_of(n)), qos, PAYLOAD);
            sources.push(Publisher {
                wire,
                template,
                sent: 0,
                delivered: 0,
                acknowledged: 0,
            });
        }
        Ok(Self {
            shape,
            poll,
            publishers: sources,
            subscribers: all,
            begin: Instant::now(),
            ready: (0..publishers).collect(),
            buffer: vec![0; READ_BYTES],
            output: Vec::with_capacity(READ_BYTES),
            delivered: 0,
            lost: 0,
            doubled: 0,
            disordered: 0,
            latency: Histogram::new_with_max(60_000_000_000, 3)?,
        })
    }

    fn run(&mut self, time: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            for n in std::mem::take(&mut self.ready) {
                self.publish(n)?;
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Waits for what is still under way.
    fn finish(&mut self) -> anyhow::Result<()> {
        let copies = self.shape.copies();
        let open = |load: &Self| {
            load.publishers.iter().any(|it| {
                it.delivered < it.sent * copies || (load.shape.qos > 0 && it.acknowledged < it.sent)
            })
        };
        let begin = Instant::now();
        while open(self) && begin.elapsed() < STALLED {
            self.turn()?;
        }
        let sent: u64 = self.publishers.iter().map(|it| it.sent).sum();
        self.lost += (sent * copies).saturating_sub(self.delivered + self.lost);
        if self.shape.qos > 0 {
            let acknowledged: u64 = self.publishers.iter().map(|it| it.acknowledged).sum();
            ensure!(
                acknowledged == sent,
                "{sent} messages sent, {acknowledged} acknowledged"
            );
        }
        Ok(())
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1024);
        self.poll.poll(&mut events, Some(STALLED))?;
        if events.is_empty() {
            self.give_up();
            return Ok(());
        }
        for event in &events {
            let Token(token) = event.token();
            let publishers = self.publishers.len();
            if event.is_writable() {
                let wire = match token.checked_sub(publishers) {
                    None => &mut self.publishers[token].wire,
                    Some(n) => &mut self.subscribers[n].wire,
                };
                wire.flush()?;
                if token < publishers {
                    self.ready.push(token);
                }
            }
            if event.is_readable() {
                match token.checked_sub(publishers) {
                    None => self.hear_publisher(token)?,
                    Some(n) => self.hear_subscriber(n)?,
                }
            }
        }
        Ok(())
    }

    /// What has been under way for too long will not come any more.
    fn give_up(&mut self) {
        let copies = self.shape.copies();
        for (n, publisher) in self.publishers.iter_mut().enumerate() {
            self.lost += publisher.sent * copies - publisher.delivered;
            publisher.delivered = publisher.sent * copies;
            self.ready.push(n);
        }
    }

    fn publish(&mut self, n: usize) -> anyhow::Result<()> {
        let publisher = &mut self.publishers[n];
        let room = publisher.delivered / self.shape.copies() + WINDOW - publisher.sent;
        if room == 0 || !publisher.wire.output.is_empty() {
            return Ok(());
        }
        self.output.clear();
        let sent = self.begin.elapsed().as_nanos() as u64;
        for _ in 0..room {
            let mark = Mark {
                publisher: n as u32,
                number: publisher.sent as u32,
                sent,
            };
            publisher.template.write(&mut self.output, mark);
            publisher.sent += 1;
        }
        publisher.wire.write(&self.output)
    }

    fn hear_publisher(&mut self, n: usize) -> anyhow::Result<()> {
        let Publisher {
            wire, acknowledged, ..
        } = &mut self.publishers[n];
        wire.read(&mut self.buffer, |frame, _| {
            ensure!(
                frame.first == wire::PUBACK,
                "a publisher got packet {:#x}",
                frame.first
            );
            *acknowledged += 1;
            Ok(())
        })
    }

    fn hear_subscriber(&mut self, n: usize) -> anyhow::Result<()> {
        let Self {
            publishers,
            subscribers,
            buffer,
            ready,
            latency,
            ..
        } = self;
        let (delivered, doubled, disordered) =
            (&mut self.delivered, &mut self.doubled, &mut self.disordered);
        let now = self.begin.elapsed().as_nanos() as u64;
        let Subscriber { wire, expected } = &mut subscribers[n];
        let mut touched = usize::MAX;
        wire.read(buffer, |frame, out| {
            ensure!(
                frame.first >> 4 == 3,
                "a subscriber got packet {:#x}",
                frame.first
            );
            let (mark, id) = wire::message(&frame).context("a message of another size")?;
            if let Some(id) = id {
                wire::puback(out, id);
            }
            let from = mark.publisher as usize;
            let next = &mut expected[from];
            if mark.number + 1 == *next {
                *doubled += 1;
                return Ok(());
            }
            // A gap may be a loss, which shows at the end; going back is none.
            *disordered += u64::from(mark.number < *next);
            *next = mark.number + 1;
            *delivered += 1;
            publishers[from].delivered += 1;
            latency.saturating_record(now.saturating_sub(mark.sent));
            if from != touched {
                ready.push(from);
                touched = from;
            }
            Ok(())
        })
    }
}

impl Wire {
    /// Reads what is there and hands on whole packets; what `hear` writes is sent.
    fn read(
        &mut self,
        buffer: &mut [u8],
        mut hear: impl FnMut(wire::Frame<'_>, &mut Vec<u8>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut answers = Vec::new();
        loop {
            let held = self.input.len();
            buffer[..held].copy_from_slice(&self.input);
            let end = match self.stream.read(&mut buffer[held..]) {
                Ok(0) => bail!("the broker has closed a connection"),
                Ok(n) => held + n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            };
            let mut at = 0;
            while let Some(frame) = wire::frame(&buffer[at..end]) {
                at += frame.len;
                hear(frame, &mut answers)?;
            }
            self.input.clear();
            self.input.extend_from_slice(&buffer[at..end]);
            if end < buffer.len() {
                break;
            }
        }
        if answers.is_empty() {
            Ok(())
        } else {
            self.write(&answers)
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while self.output.is_empty() && !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.output.extend(bytes);
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let waiting = std::mem::take(&mut self.output);
        let (front, back) = waiting.as_slices();
        self.write(front)?;
        self.write(back)
    }
}

/// Logs in and waits for the welcome, then goes on without waiting.
fn log_in(broker: &Broker, client_id: &str, n: usize) -> anyhow::Result<Wire> {
    let mut stream = std::net::TcpStream::connect(broker.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&wire::connect(client_id, broker.login(n)))?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack)?;
    ensure!(
        connack == WELCOME,
        "the broker refuses a client: {connack:?}"
    );
    stream.set_nonblocking(true)?;
    Ok(Wire {
        stream: TcpStream::from_std(stream),
        input: Vec::new(),
        output: VecDeque::new(),
    })
}

fn subscribe(wire: &mut Wire, packet: &[u8]) -> anyhow::Result<()> {
    wire.write(packet)?;
    let begin = Instant::now();
    let mut suback = [0; 16];
    loop {
        match wire.stream.read(&mut suback) {
            Ok(5) if suback[0] == wire::SUBACK && suback[4] < 0x80 => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ensure!(
                    begin.elapsed() < Duration::from_secs(10),
                    "no answer to SUBSCRIBE"
                );
                std::thread::sleep(Duration::from_micros(100));
            }
            other => bail!("the broker refuses a subscription: {other:?} {suback:?}"),
        }
    }
}
