//! MQTT in WebSocket frames [MQTT5-6.0.0]: the handshake, and bytes that come and go in binary messages.
//!
//! Packets and frames need not meet: what comes is one stream of bytes, and what goes is sent as one message
//! each time packets are written.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::header::{HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Bytes, Message};

use crate::tls::Tls;
use crate::transport::{Fault, Socket};

/// The whole request of a handshake.
const MAX_REQUEST: usize = 8 * 1024;
/// What one message takes of what is to be written.
const MAX_WRITE: usize = 64 * 1024;
/// Bytes and messages of the socket for one read of packets, before others get their turn.
const READ_BYTES: usize = 128 * 1024;
const READ_MESSAGES: usize = 64;
/// The sub-protocols of MQTT 3.1.1 and 5 [MQTT5-6.0.0-3], and of 3.1.
const MQTT: &str = "mqtt";
const MQTT31: &str = "mqttv3.1";

/// What a listener asks of its handshakes.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) path: Box<str>,
    /// Where pages of browsers may be from; anywhere if there is none.
    pub(crate) origins: Vec<String>,
    /// The largest message of a client, fragments together.
    pub(crate) max_message: usize,
    /// Until the client is let in.
    pub(crate) max_first_message: usize,
    pub(crate) mqtt31: bool,
}

/// What carries frames.
pub(crate) enum Lower {
    Plain(Socket),
    Tls(Box<Tls>),
}

pub(crate) struct Web {
    lower: Lower,
    terms: Terms,
    stage: Stage,
    /// The answer to the handshake, as far as it is not written.
    answer: Vec<u8>,
    /// What of a message was not read yet.
    rest: Bytes,
    /// The socket takes no more now.
    stuck: bool,
    closing: bool,
}

enum Stage {
    /// The request, as far as it came.
    Asked(Vec<u8>),
    Open(Box<WebSocketContext>),
    /// Refused, or broken by the client: what it sends now means nothing.
    Over,
}

impl Web {
    pub(crate) const fn new(lower: Lower, terms: Terms) -> Self {
        Self {
            lower,
            terms,
            stage: Stage::Asked(Vec::new()),
            answer: Vec::new(),
            rest: Bytes::new(),
            stuck: false,
            closing: false,
        }
    }

    pub(crate) const fn socket(&mut self) -> &mut Socket {
        match &mut self.lower {
            Lower::Plain(socket) => socket,
            Lower::Tls(tls) => tls.socket(),
        }
    }

    pub(crate) fn feed(&mut self, bytes: Vec<u8>) {
        match &mut self.lower {
            Lower::Plain(_) => self.stage = Stage::Asked(bytes),
            Lower::Tls(tls) => tls.feed(bytes),
        }
    }

    pub(crate) const fn is_handshaking(&self) -> bool {
        matches!(self.stage, Stage::Asked(_))
    }

    pub(crate) fn client_certificate(&self) -> Option<&[u8]> {
        match &self.lower {
            Lower::Plain(_) => None,
            Lower::Tls(tls) => tls.client_certificate(),
        }
    }

    /// Allows messages as large as those of a client that is known.
    pub(crate) fn welcome(&mut self) {
        let most = Some(self.terms.max_message);
        if let Stage::Open(context) = &mut self.stage {
            context.set_config(|config| {
                config.max_message_size = most;
                config.max_frame_size = most;
            });
        }
    }

    /// Says goodbye, and closes this side when all is written.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.close_with(CloseCode::Normal)
    }

    fn close_with(&mut self, code: CloseCode) -> io::Result<()> {
        if !self.closing {
            self.closing = true;
            if let Stage::Open(context) = &mut self.stage {
                let frame = CloseFrame {
                    code,
                    reason: "".into(),
                };
                // What cannot be written now is kept.
                let _ = context.close(&mut self.lower, Some(frame));
            }
        }
        self.push()
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn push(&mut self) -> io::Result<()> {
        self.stuck = false;
        let done = self.push_answer().and_then(|()| match &mut self.stage {
            Stage::Open(context) => match context.flush(&mut self.lower) {
                Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(()),
                Err(Error::Io(error)) => Err(error),
                Err(error) => Err(io::Error::other(error)),
            },
            Stage::Asked(_) | Stage::Over => self.lower.flush(),
        });
        match done {
            Ok(()) if self.closing => self.lower.close(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.stuck = true;
                Ok(())
            }
            done => done,
        }
    }

    fn push_answer(&mut self) -> io::Result<()> {
        while !self.answer.is_empty() {
            match self.lower.write(&self.answer) {
                Ok(written) => {
                    self.answer.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the request of the handshake and answers it.
    fn shake_hands(&mut self) -> io::Result<()> {
        let Stage::Asked(request) = &mut self.stage else {
            return Ok(());
        };
        let found = loop {
            let found = match request.is_empty() {
                true => Ok(None),
                false => Request::try_parse(request),
            };
            match found {
                Ok(None) if request.len() < MAX_REQUEST => {}
                found => break found,
            }
            let mut chunk = [0; 2048];
            match self.lower.read(&mut chunk)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                len => request.extend_from_slice(&chunk[..len]),
            }
        };
        let refusal = match &found {
            Ok(Some((len, asked))) => match agree(asked, &self.terms) {
                Ok(answer) => {
                    let tail = request.split_off(*len);
                    let context = WebSocketContext::from_partially_read(
                        tail,
                        Role::Server,
                        Some(self.limits()),
                    );
                    self.answer = answer;
                    self.stage = Stage::Open(Box::new(context));
                    return self.push();
                }
                Err(refusal) => refusal,
            },
            Ok(None) => "431 Request Header Fields Too Large",
            Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => "405 Method Not Allowed",
            Err(_) => "400 Bad Request",
        };
        tracing::debug!(refusal, "cannot agree on a WebSocket");
        self.stage = Stage::Over;
        let body = format!("{refusal}\n");
        self.answer = format!(
            "HTTP/1.1 {refusal}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
             Sec-WebSocket-Version: 13\r\nConnection: close\r\n\r\n{body}",
            body.len(),
        )
        .into_bytes();
        Err(Fault::WebSocket.into())
    }

    fn limits(&self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(4 * 1024)
            // Each message is written at once.
            .write_buffer_size(0)
            // One message and what answers pings: when a client does not read, only its last ping is answered.
            .max_write_buffer_size(2 * MAX_WRITE)
            .max_message_size(Some(self.terms.max_first_message))
            .max_frame_size(Some(self.terms.max_first_message))
    }

    /// The client broke the protocol: it is told so, and that is the end.
    fn fail(&mut self, code: CloseCode) -> io::Error {
        let _ = self.close_with(code);
        self.stage = Stage::Over;
        Fault::WebSocket.into()
    }
}

/// The answer to a request, or the status that says why not.
fn agree(request: &Request, terms: &Terms) -> Result<Vec<u8>, &'static str> {
    if request.uri().path() != &*terms.path {
        return Err("404 Not Found");
    }
    let origin = request.headers().get(ORIGIN);
    if let Some(origin) = origin.filter(|_| !terms.origins.is_empty()) {
        // Browsers say where a page is from; others need not be honest, and are not asked.
        let origin = origin.to_str().unwrap_or_default();
        if !terms
            .origins
            .iter()
            .any(|it| it.eq_ignore_ascii_case(origin))
        {
            return Err("403 Forbidden");
        }
    }
    let mut response = create_response(request).map_err(|error| match error {
        Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::MissingSecWebSocketVersionHeader,
        ) => "426 Upgrade Required",
        _ => "400 Bad Request",
    })?;
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
    let offers = |protocol: &str| {
        let lists = offered.iter().filter_map(|it| it.to_str().ok());
        lists
            .flat_map(|list| list.split(','))
            .any(|it| it.trim() == protocol)
    };
    let protocol = match () {
        () if offers(MQTT) => MQTT,
        () if terms.mqtt31 && offers(MQTT31) => MQTT31,
        () => return Err("400 Bad Request"),
    };
    let headers = response.headers_mut();
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    let mut answer = Vec::new();
    write_response(&mut answer, &response).map_err(|_| "400 Bad Request")?;
    Ok(answer)
}

impl Read for Web {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_handshaking()
            && let Err(error) = self.shake_hands()
        {
            if error.kind() == ErrorKind::UnexpectedEof {
                return Ok(0);
            }
            return Err(error);
        }
        let mut limited = Limited {
            lower: &mut self.lower,
            left: READ_BYTES,
        };
        for _ in 0..READ_MESSAGES {
            if !self.rest.is_empty() {
                let len = self.rest.len().min(buffer.len());
                buffer[..len].copy_from_slice(&self.rest.split_to(len));
                return Ok(len);
            }
            let context = match &mut self.stage {
                Stage::Open(context) if self.answer.is_empty() => context,
                // Nobody has read the answer, so nothing is expected yet.
                Stage::Open(_) => return Err(ErrorKind::WouldBlock.into()),
                Stage::Asked(_) | Stage::Over => return self.lower.read(buffer),
            };
            let error = match context.read(&mut limited) {
                Ok(Message::Binary(bytes)) => {
                    self.rest = bytes;
                    continue;
                }
                // MQTT is binary, and nothing else [MQTT5-6.0.0-1].
                Ok(Message::Text(_)) => return Err(self.fail(CloseCode::Unsupported)),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {
                    continue;
                }
                Err(error) => error,
            };
            return match error {
                Error::Io(error) if error.kind() == ErrorKind::WouldBlock && limited.left == 0 => {
                    Err(ErrorKind::Interrupted.into())
                }
                Error::Io(error) => Err(error),
                Error::ConnectionClosed
                | Error::AlreadyClosed
                | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ok(0),
                Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                    Err(self.fail(CloseCode::Size))
                }
                Error::Utf8(_) => Err(self.fail(CloseCode::Unsupported)),
                _ => Err(self.fail(CloseCode::Protocol)),
            };
        }
        Err(ErrorKind::Interrupted.into())
    }
}

impl Write for Web {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let all = slices.iter().map(|slice| slice.len()).sum();
        if self.closing {
            return Ok(all);
        }
        self.push()?;
        if self.stuck {
            return Err(ErrorKind::WouldBlock.into());
        }
        let Stage::Open(context) = &mut self.stage else {
            return Ok(all);
        };
        if !context.can_write() {
            // The client said goodbye and reads no more.
            return Ok(all);
        }
        let mut message = Vec::with_capacity(all.min(MAX_WRITE));
        for slice in slices {
            let room = MAX_WRITE - message.len();
            message.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let taken = message.len();
        match context.write(&mut self.lower, Message::Binary(message.into())) {
            Ok(()) => {}
            // Kept until the socket takes more.
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Err(Error::Io(error)) => return Err(error),
            Err(error) => return Err(io::Error::other(error)),
        }
        self.push()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

impl Lower {
    fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.close(),
            Self::Tls(tls) => tls.close(),
        }
    }
}

impl Read for Lower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Lower {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// Reads so many bytes and no more: who sends without end, and nothing that MQTT sees, must not keep a thread.
struct Limited<'a> {
    lower: &'a mut Lower,
    left: usize,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.left);
        if most == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let len = self.lower.read(&mut buffer[..most])?;
        self.left -= len;
        Ok(len)
    }
}

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lower.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lower.flush()
    }
}
