//! Who is online, for administrators.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;

use rollcall_domain::attendance::{
    Attendee, Counts, Happened, LastSeen, News, Overview, Register, Watching,
};
use rollcall_domain::presence::{Kick, Kicked, Snapshot, Whom};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::api::kick_request;
use crate::status::refusal;
use crate::words::parse;
use crate::{Front, api};

/// Sessions or events of one message.
const PAGE: usize = 1000;
/// The most of a list.
const MAX_PAGE: u64 = 10_000;
/// Messages that wait for a slow reader.
const AHEAD: usize = 2;

pub(crate) struct Presence {
    /// The front of this process, if it has one.
    front: Option<Front>,
    overview: Overview,
    stop: watch::Receiver<bool>,
}

impl Presence {
    pub(crate) const fn new(
        front: Option<Front>,
        overview: Overview,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            front,
            overview,
            stop,
        }
    }

    fn front(&self) -> Result<&Front, Status> {
        self.front.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "this process has no MQTT front: ask one (--server), or for all (`rollcall presence --all`)",
            )
        })
    }
}

#[tonic::async_trait]
impl api::presence_server::Presence for Presence {
    async fn list_online(
        &self,
        request: Request<api::Page>,
    ) -> Result<Response<api::ListOnlineResponse>, Status> {
        let api::Page { offset, limit } = request.into_inner();
        let roll = &self.front()?.roll;
        let Snapshot { position, online } = roll.snapshot();
        let (offset, limit) = (offset as usize, limit.min(MAX_PAGE) as usize);
        let sessions = online
            .iter()
            .skip(offset)
            .take(limit)
            .map(|(_, online)| api::Online {
                session_id: online.session.id.to_string(),
                thing_id: online.session.thing.to_string(),
                client_id: online.session.client_id.to_string(),
                protocol: online.session.protocol.as_str().to_owned(),
                peer: online.session.peer.to_string(),
                since: online.since.0,
            });
        Ok(Response::new(api::ListOnlineResponse {
            instance: roll.instance().to_owned(),
            total: online.len() as u64,
            sessions: sessions.collect(),
            position,
        }))
    }

    async fn list_sessions(
        &self,
        request: Request<api::ListSessionsRequest>,
    ) -> Result<Response<api::ListSessionsResponse>, Status> {
        let api::ListSessionsRequest {
            offset,
            limit,
            instance,
            thing_id,
        } = request.into_inner();
        let thing = thing_id.map(|id| parse("thing_id", &id)).transpose()?;
        let limit = limit.min(MAX_PAGE);
        let listed = self
            .overview
            .list(instance.as_deref(), thing, offset, limit);
        let (page, total) = listed.await.map_err(refusal)?;
        Ok(Response::new(api::ListSessionsResponse {
            at: page.at,
            total,
            sessions: page.sessions.into_iter().map(attendee).collect(),
            instances: counts(&page.instances),
        }))
    }

    async fn count_online(
        &self,
        request: Request<api::CountOnlineRequest>,
    ) -> Result<Response<api::CountOnlineResponse>, Status> {
        let api::CountOnlineRequest {
            by_channel,
            offset,
            limit,
        } = request.into_inner();
        let limit = if limit == 0 { MAX_PAGE } else { limit };
        let counted = self.overview.count(by_channel).await.map_err(refusal)?;
        let mut counted = api::CountOnlineResponse::from(counted);
        counted.channels = page(counted.channels, offset, limit.min(MAX_PAGE)).collect();
        Ok(Response::new(counted))
    }

    async fn last_seen(
        &self,
        request: Request<api::LastSeenRequest>,
    ) -> Result<Response<api::LastSeenResponse>, Status> {
        let thing = parse("thing_id", &request.into_inner().thing_id)?;
        let LastSeen { sessions, left } = self.overview.last_seen(thing).await.map_err(refusal)?;
        Ok(Response::new(api::LastSeenResponse {
            sessions: sessions.into_iter().map(attendee).collect(),
            last_left: left.map(|left| api::Departure {
                id: left.id,
                occurred_at: left.at.0,
                instance: left.instance,
            }),
        }))
    }

    type WatchStream = Messages;

    async fn watch(
        &self,
        request: Request<api::WatchRequest>,
    ) -> Result<Response<Messages>, Status> {
        let after = request.into_inner().after;
        let watching = self.overview.watch(after.as_deref()).await;
        let watching = watching.map_err(refusal)?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let mut stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = tell(watching, &sender) => {}
                () = sender.closed() => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn kick(
        &self,
        request: Request<api::KickRequest>,
    ) -> Result<Response<api::KickResponse>, Status> {
        let api::KickRequest {
            whom,
            reason,
            forget,
        } = request.into_inner();
        let front = self.front()?;
        let reason = match reason.as_str() {
            "" => None,
            text => Some(parse("reason", text)?),
        };
        let kick = async |whom| {
            let reason = reason.clone();
            let kick = Kick {
                whom,
                reason,
                forget,
            };
            front.sessions.kick(kick).await
        };
        let session =
            |id: &str| parse("session_id", id).map(|id| Whom::Session(front.roll.admitted_as(id)));
        let kicked = match whom {
            Some(kick_request::Whom::SessionId(id)) => kick(session(&id)?).await,
            Some(kick_request::Whom::ThingId(id)) => {
                kick(Whom::Thing(parse("thing_id", &id)?)).await
            }
            Some(kick_request::Whom::AnyId(id)) => match kick(session(&id)?).await {
                Kicked { ended: 0, .. } => kick(Whom::Thing(parse("thing_id", &id)?)).await,
                kicked => kicked,
            },
            None => return Err(Status::invalid_argument("name a session or a thing")),
        };
        if kicked == Kicked::default() {
            let instance = front.roll.instance();
            return Err(Status::not_found(format!(
                "no such session is on {instance}; `rollcall presence --all` says where it is: ask there (--server)"
            )));
        }
        Ok(Response::new(api::KickResponse {
            ended: kicked.ended as u64,
            forgotten: kicked.forgotten as u64,
        }))
    }
}

type Message = Result<api::WatchResponse, Status>;
type Messages = Pin<Box<ReceiverStream<Message>>>;

/// Tells all that comes of a watch until nobody listens any longer.
async fn tell(mut watching: Watching, sender: &mpsc::Sender<Message>) -> Option<Infallible> {
    let say = |news| sender.send(Ok(api::WatchResponse { news: Some(news) }));
    loop {
        match watching.next().await {
            News::Register(register) => {
                for part in parts(&register) {
                    say(api::watch_response::News::Roll(part)).await.ok()?;
                }
            }
            News::Events(events) => say(changes(events)).await.ok()?,
        }
    }
}

/// At least one, made as they are sent.
fn parts(register: &Register) -> impl Iterator<Item = api::RollPart> {
    let count = register.sessions.len().div_ceil(PAGE).max(1);
    (1..=count).map(move |number| {
        let sessions = register.sessions.iter().skip((number - 1) * PAGE);
        api::RollPart {
            at: register.at.clone(),
            sessions: sessions.take(PAGE).cloned().map(attendee).collect(),
            more: number < count,
            instances: match number {
                1 => counts(&register.instances),
                _ => Vec::new(),
            },
        }
    })
}

fn changes(events: Vec<Happened>) -> api::watch_response::News {
    let field = |(name, value): (Cow<str>, Cow<str>)| api::Field {
        name: name.into_owned(),
        value: value.into_owned(),
    };
    let change = |Happened { id, fields }| api::Change {
        id,
        fields: fields.into_iter().map(field).collect(),
    };
    let events = events.into_iter().map(change).collect();
    api::watch_response::News::Changes(api::Changes { events })
}

fn page<T>(all: Vec<T>, offset: u64, limit: u64) -> impl Iterator<Item = T> {
    let number = |it: u64| usize::try_from(it).unwrap_or(usize::MAX);
    all.into_iter().skip(number(offset)).take(number(limit))
}

impl From<Counts> for api::CountOnlineResponse {
    fn from(counted: Counts) -> Self {
        let channels = counted.channels.iter().map(|it| api::ChannelCount {
            channel_id: it.channel.to_string(),
            things: it.things,
            sessions: it.sessions,
        });
        Self {
            at: counted.at,
            sessions: counted.sessions,
            things: counted.things,
            instances: counts(&counted.instances),
            channels_total: counted.channels.len() as u64,
            channels: channels.collect(),
        }
    }
}

fn counts(instances: &BTreeMap<String, u64>) -> Vec<api::InstanceCount> {
    let counts = instances.iter();
    counts
        .map(|(instance, &sessions)| api::InstanceCount {
            instance: instance.clone(),
            sessions,
        })
        .collect()
}

fn attendee(it: Attendee) -> api::Attendee {
    api::Attendee {
        session_id: it.session_id,
        thing_id: it.thing_id,
        instance: it.instance,
        client_id: it.client_id,
        protocol: it.protocol,
        peer: it.peer,
        since: it.since.0,
    }
}
