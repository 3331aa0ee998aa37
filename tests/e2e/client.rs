//! An MQTT client that can do everything right, and wrong.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::Socket;

use crate::world::{PATIENCE, Thing};

/// What a CONNECT says.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    pub(crate) five: bool,
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<Will>,
    pub(crate) properties: Vec<u8>,
}

impl Hello {
    /// MQTT 3.1.1, clean session, no keep-alive.
    pub(crate) fn of(thing: &Thing, client_id: &str) -> Self {
        Self {
            five: false,
            client_id: client_id.to_owned(),
            username: Some(thing.id.clone()),
            password: Some(thing.key.clone().into_bytes()),
            clean: true,
            keep_alive: 0,
            will: None,
            properties: Vec::new(),
        }
    }

    /// Like [`Hello::of`], of somebody without credentials.
    pub(crate) fn anyone(client_id: &str) -> Self {
        Self {
            five: false,
            client_id: client_id.to_owned(),
            username: None,
            password: None,
            clean: true,
            keep_alive: 0,
            will: None,
            properties: Vec::new(),
        }
    }

    pub(crate) fn five(mut self) -> Self {
        self.five = true;
        self
    }

    pub(crate) fn version(mut self, five: bool) -> Self {
        self.five = five;
        self
    }

    /// A session that outlives the connection.
    pub(crate) fn lasting(mut self) -> Self {
        self.clean = false;
        if self.five {
            self.properties.extend([0x11, 0, 0, 0, 120]);
        }
        self
    }

    pub(crate) fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub(crate) fn property(mut self, property: &[u8]) -> Self {
        self.properties.extend_from_slice(property);
        self
    }

    pub(crate) fn will(mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) -> Self {
        let (topic, payload) = (topic.to_owned(), payload.to_vec());
        self.will = Some(Will {
            topic,
            payload,
            qos,
            retain,
            properties: Vec::new(),
        });
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 4 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        flags |= u8::from(self.username.is_some()) << 7 | u8::from(self.password.is_some()) << 6;
        let mut body = text("MQTT");
        body.extend([if self.five { 5 } else { 4 }, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        if self.five {
            body.extend(block(&self.properties));
        }
        body.extend(text(&self.client_id));
        if let Some(will) = &self.will {
            if self.five {
                body.extend(block(&will.properties));
            }
            body.extend(text(&will.topic));
            body.extend(binary(&will.payload));
        }
        if let Some(username) = &self.username {
            body.extend(text(username));
        }
        if let Some(password) = &self.password {
            body.extend(binary(password));
        }
        packet(0x10, &body)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Will {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    pub(crate) properties: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connack {
    pub(crate) present: bool,
    pub(crate) code: u8,
    pub(crate) properties: Vec<u8>,
}

/// A packet as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) first: u8,
    pub(crate) body: Vec<u8>,
}

/// What a PUBLISH says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    pub(crate) id: u16,
    pub(crate) properties: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// What a client speaks beneath MQTT.
pub(crate) trait Layer: Send {
    fn write(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()>;

    /// At least one byte, or none at the end.
    fn read(&mut self, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize>;
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) layer: Option<Box<dyn Layer>>,
    pub(crate) five: bool,
    buffer: Vec<u8>,
    next_id: u16,
}

impl Client {
    pub(crate) fn open(address: SocketAddr, five: bool) -> Self {
        Self::over(TcpStream::connect(address).expect("a server"), five)
    }

    /// From an address of this machine's own network, 127.0.0.0/8.
    pub(crate) fn open_from(from: [u8; 4], address: SocketAddr, five: bool) -> Self {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        let from = SocketAddr::from((from, 0));
        socket.bind(&from.into()).expect("an address");
        socket.connect(&address.into()).expect("a server");
        Self::over(socket.into(), five)
    }

    pub(crate) fn over(stream: TcpStream, five: bool) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self {
            stream,
            layer: None,
            five,
            buffer: Vec::new(),
            next_id: 0,
        }
    }

    pub(crate) fn connect(address: SocketAddr, hello: Hello) -> (Self, Connack) {
        let mut client = Self::open(address, hello.five);
        client.send(&hello.bytes());
        let connack = client.connack();
        (client, connack)
    }

    /// Like [`Client::connect`], over something that speaks beneath MQTT.
    pub(crate) fn connect_over(
        address: SocketAddr,
        layer: Box<dyn Layer>,
        hello: Hello,
    ) -> (Self, Connack) {
        let mut client = Self::open(address, hello.five);
        client.layer = Some(layer);
        client.send(&hello.bytes());
        let connack = client.connack();
        (client, connack)
    }

    pub(crate) fn connack(&mut self) -> Connack {
        let packet = self.receive();
        assert_eq!(packet.first, 0x20, "{packet:?}");
        let mut rest = &packet.body[2..];
        let properties = if self.five {
            take_block(&mut rest)
        } else {
            Vec::new()
        };
        Connack {
            present: packet.body[0] == 1,
            code: packet.body[1],
            properties,
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        match &mut self.layer {
            Some(layer) => layer.write(&mut self.stream, bytes),
            None => self.stream.write_all(bytes),
        }
        .expect("sent");
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next packet; `None` if none comes within the time that the socket waits.
    pub(crate) fn try_receive(&mut self) -> std::io::Result<Option<Packet>> {
        loop {
            if let Some(packet) = self.take_packet() {
                return Ok(Some(packet));
            }
            let mut bytes = [0; 65_536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.buffer.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The next packet; panics at the end of the stream.
    pub(crate) fn receive(&mut self) -> Packet {
        self.receive_or_end().expect("a packet, not the end")
    }

    /// The next packet, or `None` when the server has closed.
    pub(crate) fn receive_or_end(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.take_packet() {
                return Some(packet);
            }
            let mut bytes = [0; 65_536];
            let read = match &mut self.layer {
                Some(layer) => layer.read(&mut self.stream, &mut bytes),
                None => self.stream.read(&mut bytes),
            };
            match read {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("cannot read: {error}"),
            }
        }
    }

    fn take_packet(&mut self) -> Option<Packet> {
        let (mut len, mut at) = (0usize, 1);
        loop {
            let byte = *self.buffer.get(at)?;
            len |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if self.buffer.len() < at + len {
            return None;
        }
        let rest = self.buffer.split_off(at + len);
        let whole = std::mem::replace(&mut self.buffer, rest);
        Some(Packet {
            first: whole[0],
            body: whole[at..].to_vec(),
        })
    }

    /// The server says nothing for a while. Everything before it has been asked for with a PING.
    pub(crate) fn expect_silence(&mut self) {
        self.send(&[0xC0, 0]);
        let packet = self.receive();
        assert_eq!(
            packet.first, 0xD0,
            "expected nothing but the answer to a ping: {packet:?}"
        );
    }

    /// The server has closed, without another word.
    pub(crate) fn expect_end(&mut self) {
        let packet = self.receive_or_end();
        assert_eq!(packet, None);
    }

    /// The server says goodbye with this reason code and closes; in 3.1.1 it just closes.
    pub(crate) fn expect_disconnect(&mut self, code: u8) {
        if self.five {
            let packet = self.receive();
            assert_eq!((packet.first, packet.body[0]), (0xE0, code), "{packet:?}");
        }
        self.expect_end();
    }

    pub(crate) fn id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    /// Subscribes and returns the codes; each filter with its options.
    pub(crate) fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        let id = self.id();
        self.send(&subscribe(self.five, id, filters));
        let packet = self.receive();
        assert_eq!(packet.first, 0x90, "{packet:?}");
        assert_eq!(packet.body[..2], id.to_be_bytes());
        let mut rest = &packet.body[2..];
        if self.five {
            take_block(&mut rest);
        }
        rest.to_vec()
    }

    pub(crate) fn unsubscribe(&mut self, filter: &str) -> Vec<u8> {
        let id = self.id();
        let mut body = id.to_be_bytes().to_vec();
        if self.five {
            body.push(0);
        }
        body.extend(text(filter));
        self.send(&packet(0xA2, &body));
        let packet = self.receive();
        assert_eq!(packet.first, 0xB0, "{packet:?}");
        packet.body[2..].to_vec()
    }

    /// Publishes, and sees QoS 1 and 2 through. Returns the reason code of the first answer.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: u8) -> u8 {
        self.publish_with(topic, payload, qos, false, &[])
    }

    pub(crate) fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: u8,
        retain: bool,
        properties: &[u8],
    ) -> u8 {
        let id = self.id();
        self.send(&publish(
            self.five, topic, payload, qos, retain, id, properties,
        ));
        if qos == 0 {
            return 0;
        }
        let packet = self.receive();
        assert_eq!(
            packet.first,
            if qos == 1 { 0x40 } else { 0x50 },
            "{packet:?}"
        );
        assert_eq!(packet.body[..2], id.to_be_bytes());
        // That nobody listens is no failure.
        let code = packet.body.get(2).copied().unwrap_or(0);
        let code = if code == 0x10 { 0 } else { code };
        if qos == 2 && code < 0x80 {
            self.ack(0x62, id);
            let packet = self.receive();
            assert_eq!(
                (packet.first, &packet.body[..2]),
                (0x70, &id.to_be_bytes()[..])
            );
        }
        code
    }

    pub(crate) fn ack(&mut self, first: u8, id: u16) {
        self.send(&packet(first, &id.to_be_bytes()));
    }

    /// The next message, not acknowledged yet.
    pub(crate) fn message(&mut self) -> Message {
        let packet = self.receive();
        assert_eq!(packet.first >> 4, 3, "{packet:?}");
        message(&packet, self.five)
    }

    /// The next message, seen through.
    pub(crate) fn take(&mut self) -> Message {
        let message = self.message();
        match message.qos {
            1 => self.ack(0x40, message.id),
            2 => {
                self.ack(0x50, message.id);
                let packet = self.receive();
                assert_eq!(
                    (packet.first, &packet.body[..2]),
                    (0x62, &message.id.to_be_bytes()[..])
                );
                self.ack(0x70, message.id);
            }
            _ => {}
        }
        message
    }

    /// Says goodbye.
    pub(crate) fn disconnect(mut self) {
        self.send(&[0xE0, 0]);
        self.expect_end();
    }

    /// Breaks the connection off with a reset.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("a socket");
    }
}

pub(crate) fn subscribe(five: bool, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if five {
        body.push(0);
    }
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

pub(crate) fn publish(
    five: bool,
    topic: &str,
    payload: &[u8],
    qos: u8,
    retain: bool,
    id: u16,
    properties: &[u8],
) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    if five {
        body.extend(block(properties));
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1 | u8::from(retain), &body)
}

pub(crate) fn message(packet: &Packet, five: bool) -> Message {
    let mut rest = &packet.body[..];
    let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    let topic = String::from_utf8(rest[2..2 + len].to_vec()).expect("text");
    rest = &rest[2 + len..];
    let qos = packet.first >> 1 & 3;
    let mut id = 0;
    if qos > 0 {
        id = u16::from_be_bytes([rest[0], rest[1]]);
        rest = &rest[2..];
    }
    let properties = if five {
        take_block(&mut rest)
    } else {
        Vec::new()
    };
    Message {
        dup: packet.first & 8 != 0,
        qos,
        retain: packet.first & 1 != 0,
        topic,
        id,
        properties,
        payload: rest.to_vec(),
    }
}

/// A block of properties shorter than 16 KiB.
fn take_block(rest: &mut &[u8]) -> Vec<u8> {
    let (mut len, mut at) = (usize::from(rest[0] & 0x7f), 1);
    if rest[0] & 0x80 != 0 {
        len |= usize::from(rest[1]) << 7;
        at = 2;
    }
    let block = rest[at..at + len].to_vec();
    *rest = &rest[at + len..];
    block
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend(variable(body.len()));
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn block(properties: &[u8]) -> Vec<u8> {
    let mut bytes = variable(properties.len());
    bytes.extend_from_slice(properties);
    bytes
}

pub(crate) fn variable(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

pub(crate) fn binary(bytes: &[u8]) -> Vec<u8> {
    let mut all = (bytes.len() as u16).to_be_bytes().to_vec();
    all.extend_from_slice(bytes);
    all
}
