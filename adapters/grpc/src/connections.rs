//! Connections of the gRPC edge: so many at one time, and no patience with those that say nothing.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use rollcall_tls::TlsStream;
use rollcall_tls::server::Certificates;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// The preface of HTTP/2 and the head of the first frame (RFC 9113, 3.4 and 4.1). Later on the server asks whether
/// the client is still there.
const GREETING: usize = 24 + 9;
/// How long to leave a listener alone that cannot accept (no more files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts as long as there is room, and closes others unread.
pub(crate) struct Incoming {
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
    handshake_timeout: Duration,
    slots: Arc<Semaphore>,
    pause: Option<Pin<Box<Sleep>>>,
    turned_away: Counter,
    timed_out: Counter,
    refused: Counter,
    open: Gauge,
}

impl Incoming {
    pub(crate) fn new(
        listener: TcpListener,
        certificates: Option<Arc<Certificates>>,
        max_connections: usize,
        handshake_timeout: Duration,
    ) -> Self {
        let turned_away = "rollcall_grpc_connections_turned_away_total";
        describe_counter!(
            turned_away,
            "gRPC connections closed unread because there were grpc.max_connections"
        );
        let timed_out = "rollcall_grpc_connections_timed_out_total";
        describe_counter!(
            timed_out,
            "gRPC connections closed because HTTP/2 did not begin in time"
        );
        let refused = "rollcall_grpc_handshake_failures_total";
        describe_counter!(
            refused,
            "gRPC connections closed because TLS failed: clients that do not trust the server, or have no certificate"
        );
        let open = "rollcall_grpc_connections";
        describe_gauge!(open, "gRPC connections that are open");
        Self {
            listener,
            certificates,
            handshake_timeout,
            slots: Arc::new(Semaphore::new(max_connections)),
            pause: None,
            turned_away: counter!(turned_away),
            timed_out: counter!(timed_out),
            refused: counter!(refused),
            open: gauge!(open),
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(context));
                this.pause = None;
            }
            let stream = match ready!(this.listener.poll_accept(context)) {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a gRPC connection");
                    this.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&this.slots).try_acquire_owned() else {
                this.turned_away.increment(1);
                continue;
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set up a gRPC connection");
            }
            this.open.increment(1.0);
            return Poll::Ready(Some(Ok(Connection {
                about: stream.connect_info(),
                carrier: match &this.certificates {
                    None => Carrier::Plain(stream),
                    Some(certificates) => {
                        let accepting = rollcall_tls::accept(certificates.current(), stream);
                        Carrier::Accepting(Box::pin(accepting))
                    }
                },
                missing: GREETING,
                deadline: Some(Box::pin(sleep(this.handshake_timeout))),
                timed_out: this.timed_out.clone(),
                refused: this.refused.clone(),
                open: this.open.clone(),
                _slot: slot,
            })));
        }
    }
}

pub(crate) struct Connection {
    about: TcpConnectInfo,
    carrier: Carrier,
    /// Bytes of the greeting that have not come.
    missing: usize,
    /// Until they have.
    deadline: Option<Pin<Box<Sleep>>>,
    timed_out: Counter,
    refused: Counter,
    open: Gauge,
    _slot: OwnedSemaphorePermit,
}

type Accepting = Pin<Box<dyn Future<Output = io::Result<TlsStream<TcpStream>>> + Send>>;

/// What carries the bytes of HTTP/2.
enum Carrier {
    Plain(TcpStream),
    /// In the middle of the handshake of TLS.
    Accepting(Accepting),
    Tls(Box<TlsStream<TcpStream>>),
    /// There was no handshake.
    Failed,
}

/// What reads and writes.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

impl Connection {
    /// What to read from and write to, once TLS is there.
    fn duplex(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Duplex>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            self.deadline = None;
            self.timed_out.increment(1);
            if matches!(self.carrier, Carrier::Accepting(_)) {
                self.carrier = Carrier::Failed;
            }
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if let Carrier::Accepting(accepting) = &mut self.carrier {
            match ready!(accepting.as_mut().poll(context)) {
                Ok(stream) => self.carrier = Carrier::Tls(Box::new(stream)),
                Err(error) => {
                    self.carrier = Carrier::Failed;
                    tracing::debug!(%error, "a gRPC client has failed at TLS");
                    self.refused.increment(1);
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(match &mut self.carrier {
            Carrier::Plain(stream) => Pin::new(stream),
            Carrier::Tls(stream) => Pin::new(&mut **stream),
            Carrier::Accepting(_) | Carrier::Failed => {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            }
        }))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.about.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let duplex = ready!(self.duplex(context))?;
        ready!(duplex.poll_read(context, buffer))?;
        self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
        if self.missing == 0 {
            self.deadline = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let duplex = ready!(self.duplex(context))?;
        duplex.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let duplex = ready!(self.duplex(context))?;
        duplex.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.carrier {
            Carrier::Plain(stream) => stream.is_write_vectored(),
            Carrier::Tls(stream) => stream.is_write_vectored(),
            Carrier::Accepting(_) | Carrier::Failed => false,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let duplex = ready!(self.duplex(context))?;
        duplex.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let duplex = ready!(self.duplex(context))?;
        duplex.poll_shutdown(context)
    }
}
