//! One process of a machine to a journal, wherever copies of its file are.
//!
//! The lock beside the file knows nothing of copies. What they have in common is the name of the producer, so that
//! is claimed, as the name of a socket that is no file: the kernel gives it back when the process ends. Containers
//! with networks of their own have such names of their own; between them, as between machines, only the lease in Redis
//! tells who was first.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use uuid::Uuid;

/// Held as long as the journal is open.
#[derive(Debug)]
pub(super) struct Claim(#[expect(dead_code, reason = "held, not used")] UnixDatagram);

impl Claim {
    /// `None` if another process has it.
    pub(super) fn take(producer: Uuid) -> io::Result<Option<Self>> {
        let name = SocketAddr::from_abstract_name(format!("rollcall/journal/{producer}"))?;
        match UnixDatagram::bind_addr(&name) {
            Ok(socket) => {
                // Nobody is to send anything.
                socket.shutdown(Shutdown::Both)?;
                Ok(Some(Self(socket)))
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}
