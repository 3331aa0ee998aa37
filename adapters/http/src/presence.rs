//! Who is online on all instances: listed, counted, followed. For administrators.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Shared};
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use axum::{Extension, Json, Router};
use rollcall_domain::attendance::{
    Attendee, Happened, LastSeen, News, Overview, Register, Watching,
};
use rollcall_domain::caller::Identities;
use rollcall_domain::identity::ThingId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::problem::Problem;
use crate::reply::Reply;
use crate::request::{Admin, HasIdentities, parse};

/// The most of one page.
const MAX_PAGE: usize = 10_000;
/// Sessions in one event of a watch.
const PART: usize = 1000;
/// Events that wait for a slow reader.
const AHEAD: usize = 16;
/// How often somebody who hears nothing is told that nothing has happened.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What is shown, and to whom.
#[derive(Clone)]
pub struct Presence {
    pub overview: Overview,
    /// Of whom administrators may look.
    pub admins: Arc<dyn Identities>,
}

impl HasIdentities for Presence {
    fn identities(&self) -> &Arc<dyn Identities> {
        &self.admins
    }
}

/// Is true once the server stops.
#[derive(Clone)]
pub(crate) struct Stopping(pub(crate) watch::Receiver<bool>);

pub(crate) fn router(presence: Presence) -> Router {
    Router::new()
        .route("/presence/sessions", get(list))
        .route("/presence/counts", get(count))
        .route("/presence/things/{id}", get(last_seen))
        .route("/presence/watch", get(follow))
        .with_state(presence)
}

type QueryOr<T> = Result<Query<T>, QueryRejection>;

const fn default_limit() -> usize {
    100
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    #[serde(default)]
    offset: usize,
    #[serde(default = "default_limit")]
    limit: usize,
    instance: Option<String>,
    thing_id: Option<String>,
}

#[derive(Serialize)]
struct Session {
    session_id: String,
    thing_id: String,
    client_id: String,
    protocol: String,
    peer: String,
    since: String,
    /// Nanoseconds since the Unix epoch, as in the event.
    occurred_at: String,
    instance: String,
}

impl From<Attendee> for Session {
    fn from(it: Attendee) -> Self {
        Self {
            session_id: it.session_id,
            thing_id: it.thing_id,
            client_id: it.client_id,
            protocol: it.protocol,
            peer: it.peer,
            since: it.since.rfc3339(),
            occurred_at: it.since.to_string(),
            instance: it.instance,
        }
    }
}

fn sessions(all: impl IntoIterator<Item = Attendee>) -> Vec<Session> {
    all.into_iter().map(Session::from).collect()
}

async fn list(
    Shared(state): Shared<Presence>,
    _: Admin,
    query: QueryOr<Listed>,
) -> Reply<Json<Value>> {
    let usage = "use ?offset=0&limit=100&instance=...&thing_id=..., at most 10000";
    let Query(listed) = query.map_err(|_| Problem::invalid(usage))?;
    if !(1..=MAX_PAGE).contains(&listed.limit) {
        return Err(Problem::invalid(usage));
    }
    let thing = listed.thing_id.as_deref();
    let thing: Option<ThingId> = thing.map(|id| parse("thing_id", id)).transpose()?;
    let instance = listed.instance.as_deref();
    let (offset, limit) = (listed.offset as u64, listed.limit as u64);
    let listed = state.overview.list(instance, thing, offset, limit);
    let (page, total) = listed.await?;
    Ok(Json(json!({
        "at": page.at,
        "total": total,
        "instances": page.instances,
        "sessions": sessions(page.sessions),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Counted {
    #[serde(default)]
    by_channel: bool,
    #[serde(default)]
    offset: usize,
    #[serde(default = "default_limit")]
    limit: usize,
}

async fn count(
    Shared(state): Shared<Presence>,
    _: Admin,
    query: QueryOr<Counted>,
) -> Reply<Json<Value>> {
    let usage = "use ?by_channel=true&offset=0&limit=100, at most 10000";
    let Query(counted) = query.map_err(|_| Problem::invalid(usage))?;
    if !(1..=MAX_PAGE).contains(&counted.limit) {
        return Err(Problem::invalid(usage));
    }
    let counts = state.overview.count(counted.by_channel).await?;
    let mut answer = json!({
        "at": counts.at,
        "sessions": counts.sessions,
        "things": counts.things,
        "instances": counts.instances,
    });
    if counted.by_channel {
        let page = counts.channels.iter().skip(counted.offset);
        let page = page.take(counted.limit).map(|it| {
            json!({
                "channel_id": it.channel.to_string(),
                "things": it.things,
                "sessions": it.sessions,
            })
        });
        answer["channels"] = page.collect();
        answer["channels_total"] = counts.channels.len().into();
    }
    Ok(Json(answer))
}

async fn last_seen(
    Shared(state): Shared<Presence>,
    _: Admin,
    Path(id): Path<String>,
) -> Reply<Json<Value>> {
    let thing: ThingId = parse("id", &id)?;
    let LastSeen {
        sessions: all,
        left,
    } = state.overview.last_seen(thing).await?;
    let left = left.map(|left| {
        json!({
            "id": left.id,
            "at": left.at.rfc3339(),
            "occurred_at": left.at.to_string(),
            "instance": left.instance,
        })
    });
    Ok(Json(json!({
        "thing_id": thing.to_string(),
        "online": all.len(),
        "sessions": sessions(all),
        "last_left": left,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    after: Option<String>,
}

type Events = Sse<ReceiverStream<Result<Event, Infallible>>>;

/// Server-sent events. `roll`: in place of all that is known, in parts, of which all but the last say `more`; `event`:
/// what happened, with an id to go on after, in the query or as browsers do by `Last-Event-ID`.
async fn follow(
    Shared(state): Shared<Presence>,
    _: Admin,
    Extension(Stopping(mut stop)): Extension<Stopping>,
    headers: HeaderMap,
    query: QueryOr<Since>,
) -> Reply<Events> {
    let Query(Since { after }) = query.map_err(|_| Problem::invalid("use ?after=..."))?;
    let header = headers.get("last-event-id").and_then(|it| it.to_str().ok());
    let after = after.as_deref().or(header);
    let watching = state.overview.watch(after).await?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        tokio::select! {
            _ = tell(watching, &sender) => {}
            () = sender.closed() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    });
    Ok(Sse::new(ReceiverStream::new(receiver)))
}

type Told = Result<Event, Infallible>;

/// Tells all that comes of a watch until nobody listens any longer.
async fn tell(mut watching: Watching, sender: &mpsc::Sender<Told>) -> Option<Infallible> {
    loop {
        match tokio::time::timeout(HEARTBEAT, watching.next()).await {
            Ok(News::Register(register)) => {
                for part in parts(&register) {
                    sender.send(Ok(part)).await.ok()?;
                }
            }
            Ok(News::Events(events)) => {
                for it in events {
                    sender.send(Ok(event(it))).await.ok()?;
                }
            }
            Err(_) => sender.send(Ok(Event::default().comment(""))).await.ok()?,
        }
    }
}

/// At least one, made as they are sent.
fn parts(register: &Register) -> impl Iterator<Item = Event> {
    let total = register.sessions.len();
    let count = total.div_ceil(PART).max(1);
    (1..=count).map(move |number| {
        let part = register.sessions.iter().skip((number - 1) * PART);
        let more = number < count;
        let data = json!({
            "at": register.at,
            "total": total,
            "instances": register.instances,
            "sessions": sessions(part.take(PART).cloned()),
            "more": more,
        });
        let event = Event::default().event("roll").data(data.to_string());
        // Whoever has not got all of it begins anew.
        if more { event } else { event.id(&register.at) }
    })
}

fn event(Happened { id, fields }: Happened) -> Event {
    let fields: BTreeMap<Cow<str>, Cow<str>> = fields.into_iter().collect();
    let data = json!({ "id": id, "fields": fields });
    let event = Event::default().event("event").data(data.to_string());
    // Others may write to the stream, but ids are Redis's.
    event.id(id)
}
