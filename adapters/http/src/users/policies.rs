//! Policies on groups of users over REST.

use aide::axum::ApiRouter;
use aide::axum::routing::{delete_with, post_with};
use axum::Json;
use axum::extract::State as Shared;
use rollcall_domain::caller::Question;
use rollcall_domain::groups::{Policy, PolicyFilter, Subject};
use rollcall_domain::identity::{GroupId, Secret};
use rollcall_domain::listing::Page;
use rollcall_domain::policies::{Action, Actions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Service;
use crate::openapi::is;
use crate::query::{Paging, Query};
use crate::reply::{Done, Reply, or_never};
use crate::request::{Bearer, Body, Ids, given, or_default, parse, parse_all};

pub(super) fn routes() -> ApiRouter<Service> {
    ApiRouter::new()
        .api_route(
            "/policies",
            post_with(
                add,
                is(
                    "addPolicy",
                    "lets a user do something on a group",
                    [403, 404],
                ),
            )
            .put_with(
                update,
                is("updatePolicy", "changes what a user may do", [403, 404]),
            )
            .get_with(list, is("listPolicies", "lists policies", [403])),
        )
        .api_route(
            "/policies/{subject}/{object}",
            delete_with(
                delete,
                is("deletePolicy", "takes away what a user may do", [403]),
            ),
        )
        .api_route(
            "/authorize",
            post_with(
                authorize,
                is("authorize", "may somebody do this?", [401, 403]),
            ),
        )
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewPolicy")]
struct PolicyBody {
    /// A user.
    #[serde(default)]
    subject: String,
    /// A group.
    #[serde(default)]
    object: String,
    #[serde(default, deserialize_with = "or_default")]
    actions: Vec<String>,
}

async fn add(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Body(asked): Body<PolicyBody>,
) -> Reply<Done<201>> {
    let subject = parse("subject", &asked.subject)?;
    let object = parse("object", &asked.object)?;
    let actions = actions(&asked.actions)?;
    service
        .groups
        .add_policy(&caller, subject, object, actions)
        .await?;
    Ok(Done)
}

async fn update(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Body(asked): Body<PolicyBody>,
) -> Reply<Done<204>> {
    let subject = parse("subject", &asked.subject)?;
    let object = parse("object", &asked.object)?;
    let actions = actions(&asked.actions)?;
    service
        .groups
        .change_policy(&caller, subject, object, actions)
        .await?;
    Ok(Done)
}

async fn delete(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Ids([subject, object]): Ids<2>,
) -> Reply<Done<204>> {
    let subject = parse("subject", &subject)?;
    let object = parse("object", &object)?;
    service
        .groups
        .remove_policy(&caller, subject, object)
        .await?;
    Ok(Done)
}

#[derive(Deserialize, JsonSchema)]
struct PoliciesAsked {
    #[serde(flatten)]
    paging: Paging,
    #[serde(default)]
    owner_id: Option<String>,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    object: Option<String>,
    #[serde(default)]
    action: Option<String>,
}

async fn list(
    Shared(service): Shared<Service>,
    Bearer(caller): Bearer,
    Query(asked): Query<PoliciesAsked>,
) -> Reply<Json<PolicyPage>> {
    let page = Page::from(asked.paging);
    let filter = PolicyFilter {
        owner: given("owner_id", asked.owner_id)?,
        subject: given("subject", asked.subject)?.map(Subject::User),
        object: given("object", asked.object)?,
        action: given("action", asked.action)?,
    };
    let listing = service.groups.policies(&caller, &filter, page).await?;
    Ok(Json(PolicyPage {
        limit: page.limit,
        offset: page.offset,
        total: listing.total,
        policies: listing.items.iter().map(PolicyView::from).collect(),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Question")]
struct QuestionBody {
    /// A token, or the id of a user.
    #[serde(default)]
    subject: String,
    /// A user or a group; `things` and `users` stand for all there are.
    #[serde(default)]
    object: String,
    #[serde(default)]
    action: String,
    /// `client` or `group`.
    #[serde(default)]
    entity_type: String,
}

#[derive(Serialize, JsonSchema)]
struct Allowed {}

async fn authorize(
    Shared(service): Shared<Service>,
    Body(asked): Body<QuestionBody>,
) -> Reply<Json<Allowed>> {
    let question = Question {
        subject: &Secret::new(asked.subject),
        object: &asked.object,
        action: &asked.action,
        entity_type: &asked.entity_type,
    };
    service.identities.authorize(question).await?;
    Ok(Json(Allowed {}))
}

fn actions(names: &[String]) -> Reply<Actions> {
    let actions: Vec<Action> = parse_all("actions", names)?;
    Ok(actions.into_iter().collect())
}

#[derive(Serialize, JsonSchema)]
struct PolicyPage {
    limit: u64,
    offset: u64,
    total: u64,
    policies: Vec<PolicyView>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Policy")]
struct PolicyView {
    owner_id: String,
    subject: String,
    object: String,
    /// With what they imply.
    actions: Vec<&'static str>,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_by: Option<String>,
}

impl From<&Policy<GroupId>> for PolicyView {
    fn from(policy: &Policy<GroupId>) -> Self {
        Self {
            owner_id: policy.owner.to_string(),
            subject: policy.subject.to_string(),
            object: policy.object.to_string(),
            actions: policy.actions.implied().names(),
            created_at: policy.created_at.rfc3339(),
            updated_at: or_never(policy.update.map(|update| update.at)),
            updated_by: policy.update.map(|update| update.by.to_string()),
        }
    }
}
