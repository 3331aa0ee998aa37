//! `rollcall.users.v1.Users`, `.Tokens` and `.Passwords`.

use std::sync::Arc;

use rollcall_domain::caller::{Caller, Identities};
use rollcall_domain::entity::Status as State;
use rollcall_domain::identity::Secret;
use rollcall_domain::users::{NewUser, TokenPair, User, UserFilter, Users};
use tonic::{Request, Response, Status};

use crate::caller::caller;
use crate::status;
use crate::users_api as api;
use crate::words::{chosen, given, json, metadata, optional, page, parse, updated, wanted};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Clone)]
pub(crate) struct Service {
    users: Arc<Users>,
    identities: Arc<dyn Identities>,
}

impl Service {
    pub(crate) const fn new(users: Arc<Users>, identities: Arc<dyn Identities>) -> Self {
        Self { users, identities }
    }

    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        caller(&self.identities, request).await
    }

    async fn set_status(&self, caller: &Caller, id: &str, state: State) -> Answer<api::User> {
        let id = parse("id", id)?;
        let changed = self.users.set_status(caller, id, state).await;
        Ok(Response::new(user(changed.map_err(status::refusal)?)))
    }
}

#[tonic::async_trait]
impl api::users_server::Users for Service {
    async fn create_user(&self, request: Request<api::CreateUserRequest>) -> Answer<api::User> {
        let caller = match request.metadata().contains_key("authorization") {
            true => Some(self.caller(&request).await?),
            false => None,
        };
        let asked = request.into_inner();
        let new = NewUser {
            name: asked.name,
            tags: asked.tags,
            owner: given("owner", &asked.owner)?,
            identity: asked.identity,
            secret: Secret::new(asked.secret),
            metadata: metadata(&asked.metadata)?,
            status: chosen("status", &asked.status)?,
            admin: given::<Role>("role", &asked.role)?.is_some_and(|Role(admin)| admin),
        };
        let made = self.users.create(caller.as_ref(), new).await;
        Ok(Response::new(user(made.map_err(status::refusal)?)))
    }

    async fn view_user(&self, request: Request<api::ViewUserRequest>) -> Answer<api::User> {
        let caller = self.caller(&request).await?;
        let id = parse("id", &request.get_ref().id)?;
        let viewed = self.users.view(&caller, id).await;
        Ok(Response::new(user(viewed.map_err(status::refusal)?)))
    }

    async fn view_profile(&self, request: Request<api::ViewProfileRequest>) -> Answer<api::User> {
        let caller = self.caller(&request).await?;
        let viewed = self.users.view_profile(&caller).await;
        Ok(Response::new(user(viewed.map_err(status::refusal)?)))
    }

    async fn list_users(
        &self,
        request: Request<api::ListUsersRequest>,
    ) -> Answer<api::ListUsersResponse> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let filter = UserFilter {
            status: chosen("status", &asked.status)?,
            name: asked.name,
            identity: asked.identity,
            tag: asked.tag,
            owner: optional("owner", asked.owner.as_deref())?,
            metadata: wanted(&asked.metadata)?,
            visibility: chosen("visibility", &asked.visibility)?,
        };
        let listing = self.users.list(&caller, &filter, page(asked.page)).await;
        let listing = listing.map_err(status::refusal)?;
        Ok(Response::new(api::ListUsersResponse {
            users: listing.items.into_iter().map(user).collect(),
            total: listing.total,
        }))
    }

    async fn update_user(&self, request: Request<api::UpdateUserRequest>) -> Answer<api::User> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let id = parse("id", &asked.id)?;
        let metadata = asked.metadata.as_deref().map(metadata).transpose()?;
        let changed = self.users.update(&caller, id, asked.name, metadata).await;
        Ok(Response::new(user(changed.map_err(status::refusal)?)))
    }

    async fn update_user_tags(
        &self,
        request: Request<api::UpdateUserTagsRequest>,
    ) -> Answer<api::User> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let id = parse("id", &asked.id)?;
        let changed = self.users.update_tags(&caller, id, asked.tags).await;
        Ok(Response::new(user(changed.map_err(status::refusal)?)))
    }

    async fn update_user_identity(
        &self,
        request: Request<api::UpdateUserIdentityRequest>,
    ) -> Answer<api::User> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let id = parse("id", &asked.id)?;
        let changed = self.users.update_identity(&caller, id, asked.identity);
        Ok(Response::new(user(changed.await.map_err(status::refusal)?)))
    }

    async fn update_user_owner(
        &self,
        request: Request<api::UpdateUserOwnerRequest>,
    ) -> Answer<api::User> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let (id, owner) = (parse("id", &asked.id)?, parse("owner", &asked.owner)?);
        let changed = self.users.update_owner(&caller, id, owner).await;
        Ok(Response::new(user(changed.map_err(status::refusal)?)))
    }

    async fn update_secret(&self, request: Request<api::UpdateSecretRequest>) -> Answer<api::User> {
        let caller = self.caller(&request).await?;
        let asked = request.into_inner();
        let (old, new) = (Secret::new(asked.old_secret), Secret::new(asked.new_secret));
        let changed = self.users.update_secret(&caller, &old, &new).await;
        Ok(Response::new(user(changed.map_err(status::refusal)?)))
    }

    async fn enable_user(&self, request: Request<api::EnableUserRequest>) -> Answer<api::User> {
        let caller = self.caller(&request).await?;
        let id = &request.get_ref().id;
        self.set_status(&caller, id, State::Enabled).await
    }

    async fn disable_user(&self, request: Request<api::DisableUserRequest>) -> Answer<api::User> {
        let caller = self.caller(&request).await?;
        let id = &request.get_ref().id;
        self.set_status(&caller, id, State::Disabled).await
    }
}

#[tonic::async_trait]
impl api::tokens_server::Tokens for Service {
    async fn issue(&self, request: Request<api::IssueRequest>) -> Answer<api::TokenPair> {
        let asked = request.into_inner();
        let secret = Secret::new(asked.secret);
        let issued = self.users.issue_token(&asked.identity, &secret).await;
        Ok(Response::new(pair(&issued.map_err(status::refusal)?)))
    }

    async fn refresh(&self, request: Request<api::RefreshRequest>) -> Answer<api::TokenPair> {
        let token = Secret::new(request.into_inner().refresh_token);
        let issued = self.users.refresh_token(&token).await;
        Ok(Response::new(pair(&issued.map_err(status::refusal)?)))
    }

    async fn revoke(&self, request: Request<api::RevokeRequest>) -> Answer<api::RevokeResponse> {
        let token = Secret::new(request.into_inner().token);
        let revoked = self.users.revoke_token(&token).await;
        revoked.map_err(status::refusal)?;
        Ok(Response::new(api::RevokeResponse {}))
    }
}

#[tonic::async_trait]
impl api::passwords_server::Passwords for Service {
    async fn request_reset(
        &self,
        request: Request<api::RequestResetRequest>,
    ) -> Answer<api::RequestResetResponse> {
        let asked = request.into_inner();
        let kept = self.users.request_reset(&asked.email, &asked.host).await;
        kept.map_err(status::refusal)?;
        Ok(Response::new(api::RequestResetResponse {}))
    }

    async fn reset(&self, request: Request<api::ResetRequest>) -> Answer<api::ResetResponse> {
        let api::ResetRequest {
            token,
            password,
            confirm_password,
        } = request.into_inner();
        let [token, password, confirmed] = [token, password, confirm_password].map(Secret::new);
        let reset = self.users.reset_secret(&token, &password, &confirmed).await;
        reset.map_err(status::refusal)?;
        Ok(Response::new(api::ResetResponse {}))
    }
}

/// Whether it is an administrator's.
struct Role(bool);

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "admin" => Ok(Self(true)),
            "user" => Ok(Self(false)),
            _ => Err("choose admin or user"),
        }
    }
}

pub(crate) fn user(user: User) -> api::User {
    let (updated_at, updated_by) = updated(user.update);
    api::User {
        id: user.id.to_string(),
        name: user.name,
        tags: user.tags,
        owner: user.owner.map(|owner| owner.to_string()),
        identity: user.identity,
        metadata: json(user.metadata),
        status: user.status.as_str().to_owned(),
        role: if user.admin { "admin" } else { "user" }.to_owned(),
        created_at: user.created_at.0,
        updated_at,
        updated_by,
    }
}

fn pair(pair: &TokenPair) -> api::TokenPair {
    api::TokenPair {
        access_token: pair.access.expose().to_owned(),
        refresh_token: pair.refresh.expose().to_owned(),
    }
}
