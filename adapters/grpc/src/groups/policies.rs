//! `rollcall.users.v1.Policies`.

use rollcall_domain::caller::Question;
use rollcall_domain::groups::{Policy, PolicyFilter, Subject};
use rollcall_domain::identity::{GroupId, Secret};
use rollcall_domain::policies::{Action, Actions};
use tonic::{Request, Response, Status};

use super::{Answer, Service};
use crate::status;
use crate::users_api as api;
use crate::words::{optional, page, parse, parse_all, updated};

#[tonic::async_trait]
impl api::policies_server::Policies for Service {
    async fn add_policy(&self, request: Request<api::AddPolicyRequest>) -> Answer<api::Policy> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let subject = parse("subject", &asked.subject)?;
        let object = parse("object", &asked.object)?;
        let actions = actions(&asked.actions)?;
        let added = self
            .groups
            .add_policy(&caller, subject, object, actions)
            .await;
        Ok(Response::new(policy(&added.map_err(status::refusal)?)))
    }

    async fn update_policy(
        &self,
        request: Request<api::UpdatePolicyRequest>,
    ) -> Answer<api::Policy> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let subject = parse("subject", &asked.subject)?;
        let object = parse("object", &asked.object)?;
        let actions = actions(&asked.actions)?;
        let changed = self
            .groups
            .change_policy(&caller, subject, object, actions)
            .await;
        Ok(Response::new(policy(&changed.map_err(status::refusal)?)))
    }

    async fn delete_policy(
        &self,
        request: Request<api::DeletePolicyRequest>,
    ) -> Answer<api::DeletePolicyResponse> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let subject = parse("subject", &asked.subject)?;
        let object = parse("object", &asked.object)?;
        let removed = self.groups.remove_policy(&caller, subject, object).await;
        removed.map_err(status::refusal)?;
        Ok(Response::new(api::DeletePolicyResponse {}))
    }

    async fn list_policies(
        &self,
        request: Request<api::ListPoliciesRequest>,
    ) -> Answer<api::ListPoliciesResponse> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let subject = optional("subject", asked.subject.as_deref())?;
        let filter = PolicyFilter {
            owner: optional("owner", asked.owner.as_deref())?,
            subject: subject.map(Subject::User),
            object: optional("object", asked.object.as_deref())?,
            action: optional("action", asked.action.as_deref())?,
        };
        let listing = self
            .groups
            .policies(&caller, &filter, page(asked.page))
            .await
            .map_err(status::refusal)?;
        Ok(Response::new(api::ListPoliciesResponse {
            policies: listing.items.iter().map(policy).collect(),
            total: listing.total,
        }))
    }

    async fn authorize(
        &self,
        request: Request<api::AuthorizeRequest>,
    ) -> Answer<api::AuthorizeResponse> {
        let asked = request.into_inner();
        let question = Question {
            subject: &Secret::new(asked.subject),
            object: &asked.object,
            action: &asked.action,
            entity_type: &asked.entity_type,
        };
        let answered = self.identities.authorize(question).await;
        answered.map_err(status::refusal)?;
        Ok(Response::new(api::AuthorizeResponse {}))
    }
}

fn actions(names: &[String]) -> Result<Actions, Status> {
    let actions: Vec<Action> = parse_all("actions", names)?;
    Ok(actions.into_iter().collect())
}

fn policy(policy: &Policy<GroupId>) -> api::Policy {
    let actions = policy.actions.implied().names();
    let (updated_at, updated_by) = updated(policy.update);
    api::Policy {
        subject: policy.subject.to_string(),
        object: policy.object.to_string(),
        actions: actions.into_iter().map(Into::into).collect(),
        owner: policy.owner.to_string(),
        created_at: policy.created_at.0,
        updated_at,
        updated_by,
    }
}
