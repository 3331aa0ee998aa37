//! The event logs for the command line.

use std::pin::Pin;
use std::sync::Arc;

use rollcall_domain::event::{Entry, Stream};
use rollcall_domain::ports::EventLog;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::api::{self, read_events_request::Since};

/// Entries of one message.
const PAGE: usize = 500;
/// Messages that wait for a slow reader.
const AHEAD: usize = 2;

pub(crate) struct Service {
    logs: Vec<Arc<dyn EventLog>>,
    stop: watch::Receiver<bool>,
}

impl Service {
    pub(crate) const fn new(logs: Vec<Arc<dyn EventLog>>, stop: watch::Receiver<bool>) -> Self {
        Self { logs, stop }
    }
}

type Messages = Pin<Box<ReceiverStream<Result<api::ReadEventsResponse, Status>>>>;

#[tonic::async_trait]
impl api::events_server::Events for Service {
    type ReadEventsStream = Messages;

    async fn read_events(
        &self,
        request: Request<api::ReadEventsRequest>,
    ) -> Result<Response<Messages>, Status> {
        let api::ReadEventsRequest {
            stream,
            since,
            follow,
        } = request.into_inner();
        let stream: Stream = stream
            .parse()
            .map_err(|error| Status::invalid_argument(format!("{error}")))?;
        let log = self.logs.iter().find(|log| log.stream() == stream);
        let log = log.ok_or_else(|| Status::not_found("this server keeps no such stream"))?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let reading = read(Arc::clone(log), since, follow, sender.clone());
        let mut stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = reading => {}
                () = sender.closed() => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn read(
    log: Arc<dyn EventLog>,
    since: Option<Since>,
    follow: bool,
    sender: mpsc::Sender<Result<api::ReadEventsResponse, Status>>,
) {
    let (mut position, from) = match since {
        Some(Since::Position(position)) => (position, 0),
        Some(Since::OccurredAt(at)) => (0, at),
        None => (0, 0),
    };
    loop {
        let entries = match log.read(position, PAGE).await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot show events"
                );
                let _ = sender
                    .send(Err(Status::unavailable("cannot read the event log")))
                    .await;
                return;
            }
        };
        match entries.last() {
            Some(last) => position = last.position,
            None if follow => {
                log.wait(position).await;
                continue;
            }
            None => return,
        }
        let events: Vec<api::Event> = entries
            .into_iter()
            .filter(|entry| from == 0 || occurred_at(entry) >= from)
            .map(event)
            .collect();
        if !events.is_empty()
            && sender
                .send(Ok(api::ReadEventsResponse { events }))
                .await
                .is_err()
        {
            return;
        }
    }
}

fn occurred_at(entry: &Entry) -> u64 {
    let field = entry.fields.iter().find(|(name, _)| name == "occurred_at");
    field.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

fn event(entry: Entry) -> api::Event {
    let fields = entry.fields.into_iter().map(|(name, value)| api::Field {
        name: name.into_owned(),
        value: value.into_owned(),
    });
    api::Event {
        position: entry.position,
        fields: fields.collect(),
    }
}
