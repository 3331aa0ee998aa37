//! Connections of the gRPC edge: so many at one time, and no patience with those that say nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
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
    handshake_timeout: Duration,
    slots: Arc<Semaphore>,
    pause: Option<Pin<Box<Sleep>>>,
    turned_away: Counter,
    timed_out: Counter,
    open: Gauge,
}

impl Incoming {
    pub(crate) fn new(
        listener: TcpListener,
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
        let open = "rollcall_grpc_connections";
        describe_gauge!(open, "gRPC connections that are open");
        Self {
            listener,
            handshake_timeout,
            slots: Arc::new(Semaphore::new(max_connections)),
            pause: None,
            turned_away: counter!(turned_away),
            timed_out: counter!(timed_out),
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
                stream,
                missing: GREETING,
                deadline: Some(Box::pin(sleep(this.handshake_timeout))),
                timed_out: this.timed_out.clone(),
                open: this.open.clone(),
                _slot: slot,
            })));
        }
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    /// Bytes of the greeting that have not come.
    missing: usize,
    /// Until they have.
    deadline: Option<Pin<Box<Sleep>>>,
    timed_out: Counter,
    open: Gauge,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            self.deadline = None;
            self.timed_out.increment(1);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
