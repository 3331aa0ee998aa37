//! Events of what changes nothing, of many callers at one time: one task commits together whatever waits.
//!
//! While one transaction is on its way to the disk, the next ones gather: the more there is to do, the less each
//! takes. An event is kept when its caller hears of it, as with a transaction of its own.

use std::collections::HashMap;
use std::sync::Arc;

use rollcall_domain::event::{Event, Stream};
use rollcall_domain::ports::StoreError;
use sqlx::AnyPool;
use tokio::sync::{mpsc, oneshot};

use crate::events::{self, Log};

/// Callers that wait for the writer at one time; further ones wait for room.
const WAITING: usize = 1_024;
/// Callers whose events are committed together.
const TOGETHER: usize = 256;

/// Told of all who waited for one commit.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
struct Shared(Arc<sqlx::Error>);

struct Waiting {
    events: Vec<Event>,
    kept: oneshot::Sender<Result<(), Shared>>,
}

#[derive(Clone)]
pub(crate) struct Recorder(mpsc::Sender<Waiting>);

impl Recorder {
    /// Its task ends with the last of its clones.
    pub(crate) fn start(writer: AnyPool, logs: Arc<HashMap<Stream, Arc<Log>>>) -> Self {
        let (sender, waiting) = mpsc::channel(WAITING);
        tokio::spawn(run(writer, logs, waiting));
        Self(sender)
    }

    /// Returns when the events are committed, or are not.
    pub(crate) async fn record(&self, events: Vec<Event>) -> Result<(), StoreError> {
        let (kept, answer) = oneshot::channel();
        let failed = |source| StoreError::Failed {
            doing: "append to the event log",
            source,
        };
        let sent = self.0.send(Waiting { events, kept }).await;
        sent.map_err(|_| failed("the writer is gone".into()))?;
        match answer.await {
            Ok(kept) => kept.map_err(|error| failed(error.into())),
            Err(gone) => Err(failed(gone.into())),
        }
    }
}

async fn run(
    writer: AnyPool,
    logs: Arc<HashMap<Stream, Arc<Log>>>,
    mut waiting: mpsc::Receiver<Waiting>,
) {
    let mut together = Vec::with_capacity(TOGETHER);
    while waiting.recv_many(&mut together, TOGETHER).await > 0 {
        let (events, callers): (Vec<_>, Vec<_>) = together
            .drain(..)
            .map(|it: Waiting| (it.events, it.kept))
            .unzip();
        let events = events.into_iter().flatten().collect();
        let committed = async {
            let transaction = writer.begin().await?;
            events::commit(&logs, transaction, events).await
        };
        let committed = committed.await.map_err(|error| Shared(Arc::new(error)));
        for caller in callers {
            // Who has left does not want to know.
            let _ = caller.send(committed.clone());
        }
    }
}
