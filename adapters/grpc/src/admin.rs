//! Who is online, and the server itself: for administrators.

use std::sync::Arc;

use rollcall_domain::ports::{Reload, Reloaded};
use rollcall_domain::presence::{Kick, Kicked, Roll, Sessions, Snapshot, Whom};
use tonic::{Request, Response, Status};

use crate::api::kick_request;
use crate::status::parse;
use crate::{Front, api};

pub(crate) struct Server {
    reload: Arc<dyn Reload>,
}

impl Server {
    pub(crate) fn new(front: &Front) -> Self {
        Self {
            reload: Arc::clone(&front.reload),
        }
    }
}

#[tonic::async_trait]
impl api::server_server::Server for Server {
    async fn reload(
        &self,
        _: Request<api::ReloadRequest>,
    ) -> Result<Response<api::ReloadResponse>, Status> {
        let reload = Arc::clone(&self.reload);
        let reloaded = tokio::task::spawn_blocking(move || reload.reload()).await;
        let Reloaded { done, failed } =
            reloaded.map_err(|_| Status::internal("cannot read files again"))?;
        if !failed.is_empty() {
            return Err(Status::failed_precondition(failed.join("; ")));
        }
        Ok(Response::new(api::ReloadResponse { done }))
    }
}

pub(crate) struct Presence {
    roll: Arc<dyn Roll>,
    sessions: Arc<dyn Sessions>,
}

impl Presence {
    pub(crate) fn new(front: &Front) -> Self {
        Self {
            roll: Arc::clone(&front.roll),
            sessions: Arc::clone(&front.sessions),
        }
    }
}

#[tonic::async_trait]
impl api::presence_server::Presence for Presence {
    async fn list_online(
        &self,
        request: Request<api::Page>,
    ) -> Result<Response<api::ListOnlineResponse>, Status> {
        let api::Page { offset, limit } = request.into_inner();
        let Snapshot { position, online } = self.roll.snapshot();
        let (offset, limit) = (offset as usize, limit.min(10_000) as usize);
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
            instance: self.roll.instance().to_owned(),
            total: online.len() as u64,
            sessions: sessions.collect(),
            position,
        }))
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
            self.sessions.kick(kick).await
        };
        let session =
            |id: &str| parse("session_id", id).map(|id| Whom::Session(self.roll.admitted_as(id)));
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
            return Err(Status::not_found("no such session is here"));
        }
        Ok(Response::new(api::KickResponse {
            ended: kicked.ended as u64,
            forgotten: kicked.forgotten as u64,
        }))
    }
}
