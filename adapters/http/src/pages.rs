//! The pages about the process, and who is here, and is not to be any longer.

use std::sync::Arc;

use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use rollcall_domain::caller::Identities;
use rollcall_domain::ports::{Reload, Reloaded};
use rollcall_domain::presence::{Kick, KickReason, Kicked, Online, Roll, Sessions, Whom};
use serde::{Deserialize, Serialize};

use crate::Metrics;
use crate::presence::{self, Presence};
use crate::problem::Problem;
use crate::request::{Admin, HasIdentities, parse};

/// Sessions of one page of `/presence`.
const MAX_PAGE: usize = 10_000;

/// Says what a ready server lacks; nothing if it lacks nothing.
pub type Readiness = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub reload: Arc<dyn Reload>,
    /// Of whom administrators may.
    pub admins: Arc<dyn Identities>,
    /// The front, if this process has one.
    pub front: Option<Front>,
    /// Who is online on all instances, as far as this process can know.
    pub presence: Option<Presence>,
}

impl HasIdentities for Pages {
    fn identities(&self) -> &Arc<dyn Identities> {
        &self.admins
    }
}

/// Who is here, and what can be done about it.
#[derive(Clone)]
pub struct Front {
    pub roll: Arc<dyn Roll>,
    pub sessions: Arc<dyn Sessions>,
    /// Of whom administrators may.
    pub admins: Arc<dyn Identities>,
}

impl HasIdentities for Front {
    fn identities(&self) -> &Arc<dyn Identities> {
        &self.admins
    }
}

pub(crate) fn router(pages: Pages) -> Router {
    let front = pages.front.clone().map(|front| {
        Router::new()
            .route("/presence", get(online))
            .route("/sessions/{id}", delete(kick_session))
            .route("/things/{id}/sessions", delete(kick_thing))
            .with_state(front)
    });
    let attendance = pages.presence.clone().map(presence::router);
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/reload", post(reload))
        .with_state(pages)
        .merge(front.unwrap_or_default())
        .merge(attendance.unwrap_or_default())
}

async fn ready(Shared(state): Shared<Pages>) -> Response {
    let lacks = (state.readiness)();
    let status = if lacks.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(serde_json::json!({ "ready": lacks.is_empty(), "lacks": lacks })),
    )
        .into_response()
}

async fn metrics(Shared(state): Shared<Pages>) -> Response {
    state.metrics.page()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    offset: usize,
    #[serde(default = "default_limit")]
    limit: usize,
}

const fn default_limit() -> usize {
    100
}

#[derive(Serialize)]
struct Listing<'a> {
    instance: &'a str,
    total: usize,
    sessions: Vec<Session>,
}

/// One session that is online.
#[derive(Serialize)]
struct Session {
    session_id: String,
    thing_id: String,
    client_id: String,
    protocol: &'static str,
    peer: String,
    since: String,
    /// Nanoseconds since the Unix epoch, as in the event.
    occurred_at: String,
}

impl From<&Online> for Session {
    fn from(Online { session, since }: &Online) -> Self {
        Self {
            session_id: session.id.to_string(),
            thing_id: session.thing.to_string(),
            client_id: session.client_id.to_string(),
            protocol: session.protocol.as_str(),
            peer: session.peer.to_string(),
            since: since.rfc3339(),
            occurred_at: since.to_string(),
        }
    }
}

async fn online(
    Shared(state): Shared<Front>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let page = match page {
        Ok(Query(page)) if (1..=MAX_PAGE).contains(&page.limit) => page,
        _ => {
            return Problem::invalid("use ?offset=0&limit=100, at most 10000").into_response();
        }
    };
    let online = state.roll.online();
    let sessions = online
        .iter()
        .skip(page.offset)
        .take(page.limit)
        .map(Session::from)
        .collect();
    let instance = state.roll.instance();
    Json(Listing {
        instance,
        total: online.len(),
        sessions,
    })
    .into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manner {
    /// Told to clients that can be told.
    reason: Option<String>,
    /// Discards what is kept for them to come back to, too.
    #[serde(default)]
    forget: bool,
}

type MannerOr = Result<Query<Manner>, axum::extract::rejection::QueryRejection>;

/// Reads certificates again from their files; what cannot be used stays as it was.
async fn reload(Shared(state): Shared<Pages>, _: Admin) -> Response {
    let reload = Arc::clone(&state.reload);
    let reloaded = tokio::task::spawn_blocking(move || reload.reload()).await;
    let Reloaded { done, failed } = reloaded.unwrap_or_default();
    let status = match failed.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::CONFLICT,
    };
    let body = serde_json::json!({ "reloaded": done, "failed": failed });
    (status, Json(body)).into_response()
}

async fn kick_session(
    Shared(state): Shared<Front>,
    _: Admin,
    Path(id): Path<String>,
    manner: MannerOr,
) -> Result<Json<serde_json::Value>, Problem> {
    kick(&state, Whom::Session(parse("id", &id)?), manner).await
}

async fn kick_thing(
    Shared(state): Shared<Front>,
    _: Admin,
    Path(id): Path<String>,
    manner: MannerOr,
) -> Result<Json<serde_json::Value>, Problem> {
    kick(&state, Whom::Thing(parse("id", &id)?), manner).await
}

async fn kick(
    state: &Front,
    whom: Whom,
    manner: MannerOr,
) -> Result<Json<serde_json::Value>, Problem> {
    let Query(Manner { reason, forget }) =
        manner.map_err(|_| Problem::invalid("use ?reason=...&forget=true"))?;
    let reason = reason.as_deref();
    let reason: Option<KickReason> = reason.map(|it| parse("reason", it)).transpose()?;
    let kick = Kick {
        whom,
        reason,
        forget,
    };
    let kicked = state.sessions.kick(kick).await;
    if kicked == Kicked::default() {
        return Err(Problem::not_found("no such session is here"));
    }
    let Kicked { ended, forgotten } = kicked;
    Ok(Json(
        serde_json::json!({ "ended": ended, "forgotten": forgotten }),
    ))
}
