//! The MQTT edge: codec, connections, sessions, routing.

mod packet;
