//! What a connection has to say before MQTT, and what becomes of one that says it wrongly.

use std::io::{self, ErrorKind, Read};

use rollcall_domain::presence::{Farewell, Peer};

use crate::connection::Stage;
use crate::proxy::{self, Header, Malformed};
use crate::transport::Fault;
use crate::worker::Worker;

impl Worker {
    /// Reads more of the PROXY header; behind it begins what the client sends.
    pub(crate) fn read_proxy_header(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        let mut chunk = [0; 512];
        let len = match connection.transport.socket().read(&mut chunk) {
            Ok(0) => return self.end(token, Farewell::ConnectionLost),
            Ok(len) => len,
            Err(error) => return self.on_read_error(token, &error),
        };
        let mut bytes = connection.proxy_header.take().unwrap_or_default();
        bytes.extend_from_slice(&chunk[..len]);
        match proxy::parse(&bytes) {
            Ok(None) => connection.proxy_header = Some(bytes),
            Ok(Some(Header { len, client })) => {
                if let Some(client) = client {
                    connection.peer = Peer::Ip(client);
                }
                let rest = bytes.split_off(len);
                connection.input = connection.transport.feed(rest);
                if self.take_seat(token) {
                    self.resume(token);
                }
            }
            Err(Malformed) => self.on_transport_fault(token, Fault::Proxy),
        }
    }

    pub(crate) fn on_read_error(&mut self, token: usize, error: &io::Error) {
        match error.kind() {
            ErrorKind::WouldBlock => self.connections[token].readable = false,
            // There is more to do, at once or when others had their turn.
            ErrorKind::Interrupted => {}
            _ => match error.get_ref().and_then(|it| it.downcast_ref()) {
                Some(&fault) => self.on_transport_fault(token, fault),
                None => self.end(token, Farewell::ConnectionLost),
            },
        }
    }

    /// The client broke what carries MQTT: nothing can be said to it in MQTT any more.
    pub(crate) fn on_transport_fault(&mut self, token: usize, fault: Fault) {
        let connection = &self.connections[token];
        tracing::debug!(peer = %connection.peer, %fault, "cannot go on with a connection");
        if matches!(connection.stage, Stage::Closing { .. }) {
            return self.remove(token);
        }
        self.shared.listeners[connection.listener].count(fault);
        match connection.stage {
            Stage::Greeting if fault == Fault::UntrustedProxy => self.remove(token),
            // So that the client can read what it is told below MQTT.
            Stage::Greeting => {
                let connection = &mut self.connections[token];
                connection.stage = Stage::Closing { linger: true };
                match connection.transport.close() {
                    Ok(()) => self.linger(token),
                    Err(_) => self.remove(token),
                }
            }
            Stage::Arriving | Stage::Live | Stage::Closing { .. } => {
                self.end(token, Farewell::ProtocolError)
            }
        }
    }
}
