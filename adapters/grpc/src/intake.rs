//! What calls bring at one time: many large ones that are begun and never end would take all memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytesize::ByteSize;
use hyper::body::{Body as HttpBody, Bytes, Frame};
use metrics::{Counter, counter, describe_counter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::Request;
use tonic::server::NamedService;
use tonic::{Code, Status};

/// What each call may bring in any case: so whoever fills the room with large ones does not keep small ones out.
pub(crate) const SMALL: usize = 4 * 1024;

/// Room for what all calls together bring beyond that.
#[derive(Clone)]
pub(crate) struct Room {
    bytes: Arc<Semaphore>,
    refused: Counter,
}

impl Room {
    pub(crate) fn new(bytes: ByteSize) -> Self {
        let refused = "rollcall_grpc_calls_without_room_total";
        describe_counter!(
            refused,
            "gRPC calls refused because what was being received came to grpc.max_receiving"
        );
        let bytes = usize::try_from(bytes.as_u64()).unwrap_or(usize::MAX);
        Self {
            bytes: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))),
            refused: counter!(refused),
        }
    }
}

/// Has the calls of a service need room.
#[derive(Clone)]
pub(crate) struct Intake<S> {
    inner: S,
    room: Room,
}

impl<S> Intake<S> {
    pub(crate) const fn new(inner: S, room: Room) -> Self {
        Self { inner, room }
    }
}

impl<S: NamedService> NamedService for Intake<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Intake<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.inner.call(request.map(|body| {
            Body::new(Incoming {
                body,
                room: self.room.clone(),
                free: SMALL,
                taken: None,
            })
        }))
    }
}

/// What comes of a call, and the room for it until all is there.
struct Incoming {
    body: Body,
    room: Room,
    free: usize,
    taken: Option<OwnedSemaphorePermit>,
}

impl Incoming {
    fn take(&mut self, bytes: usize) -> Result<(), Status> {
        let beyond = bytes.saturating_sub(self.free);
        self.free = self.free.saturating_sub(bytes);
        let permits = u32::try_from(beyond).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room.bytes);
        match (room.try_acquire_many_owned(permits), &mut self.taken) {
            (Ok(more), Some(taken)) => taken.merge(more),
            (Ok(more), taken) => *taken = Some(more),
            (Err(_), _) => {
                self.room.refused.increment(1);
                let why = "too much is being received at this moment: try again later";
                return Err(Status::new(Code::ResourceExhausted, why));
            }
        }
        Ok(())
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(full) = self.take(data.len())
        {
            return Poll::Ready(Some(Err(full)));
        }
        Poll::Ready(frame)
    }
}
