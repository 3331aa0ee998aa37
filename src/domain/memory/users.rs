//! Users, logins and resets in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::entity::{Status, Update};
use crate::event::Event;
use crate::groups::{People, Person, PolicyStore, Subject, Tell};
use crate::identity::{GroupId, Timestamp, UserId};
use crate::listing::{Listing, Page, Visibility};
use crate::metadata;
use crate::policies::Action;
use crate::ports::StoreError;
use crate::users::{
    Change, DueReset, Login, LoginId, LoginStore, MAX_LOGINS, Reset, ResetId, ResetStore, Rotated,
    Scope, TokenHash, TokenId, User, UserFilter, UserStore,
};

use super::{Events, Groups, lock, page_of};

pub struct Users {
    state: Mutex<State>,
    events: Events,
    groups: Arc<Groups<GroupId>>,
}

#[derive(Default)]
struct State {
    users: BTreeMap<UserId, (User, String)>,
    logins: HashMap<LoginId, Login>,
    resets: HashMap<ResetId, Kept>,
}

struct Kept {
    reset: Reset,
    due_at: Option<Timestamp>,
    attempts: u32,
    token: Option<(TokenHash, Timestamp)>,
}

impl Users {
    #[must_use]
    pub fn new(events: Events, groups: Arc<Groups<GroupId>>) -> Self {
        Self {
            state: Mutex::default(),
            events,
            groups,
        }
    }

    /// What decides who is seen.
    #[must_use]
    pub fn groups(&self) -> &Groups<GroupId> {
        &self.groups
    }

    async fn sees(&self, scope: Scope, user: &User) -> Result<bool, StoreError> {
        let Scope::Of(by, visibility) = scope else {
            return Ok(true);
        };
        let mine = user.owner == Some(by);
        let member = Subject::User(user.id);
        let shared = self.groups.reaches(by, Action::ClientList, member).await?;
        Ok(match visibility {
            Visibility::Mine => mine,
            Visibility::Shared => shared,
            Visibility::All => mine || shared,
        })
    }
}

impl State {
    fn enabled(&self, id: UserId) -> Option<&User> {
        let found = self.users.get(&id).map(|(user, _)| user);
        found.filter(|user| user.status == Status::Enabled)
    }

    fn is_taken(&self, id: UserId, identity: &str) -> bool {
        let mut users = self.users.values();
        users.any(|(user, _)| user.id != id && user.identity == identity)
    }

    fn sign_out(&mut self, user: UserId) {
        self.logins.retain(|_, login| login.user != user);
        self.drop_resets(user);
    }

    fn drop_resets(&mut self, user: UserId) {
        self.resets.retain(|_, kept| kept.reset.user != Some(user));
    }

    fn armed(&self, token: &TokenHash, now: Timestamp) -> Option<UserId> {
        let is_it = |kept: &&Kept| {
            let token = kept.token.filter(|(hash, end)| hash == token && *end > now);
            token.is_some()
        };
        let user = self.resets.values().find(is_it)?.reset.user?;
        self.enabled(user).map(|user| user.id)
    }
}

fn lists(filter: &UserFilter, user: &User) -> bool {
    let whole =
        |wanted: &Option<String>, text: &String| wanted.as_ref().is_none_or(|it| it == text);
    filter.status.includes(user.status)
        && whole(&filter.name, &user.name)
        && whole(&filter.identity, &user.identity)
        && filter
            .tag
            .as_ref()
            .is_none_or(|tag| user.tags.contains(tag))
        && filter.owner.is_none_or(|owner| user.owner == Some(owner))
        && filter
            .metadata
            .as_ref()
            .is_none_or(|wanted| metadata::contains(&user.metadata, wanted))
}

#[async_trait]
impl UserStore for Users {
    async fn add_user(
        &self,
        user: &User,
        password: &str,
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        if state.is_taken(user.id, &user.identity) {
            return Err(StoreError::Taken("identity"));
        }
        state.users.insert(user.id, (user.clone(), password.into()));
        self.events.record(events);
        Ok(())
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let state = lock(&self.state);
        Ok(state.users.get(&id).map(|(user, _)| user.clone()))
    }

    async fn credentials(&self, identity: &str) -> Result<Option<(User, String)>, StoreError> {
        let state = lock(&self.state);
        let mut users = state.users.values();
        Ok(users.find(|(user, _)| user.identity == identity).cloned())
    }

    async fn password(&self, id: UserId) -> Result<Option<String>, StoreError> {
        let state = lock(&self.state);
        Ok(state.users.get(&id).map(|(_, password)| password.clone()))
    }

    async fn change_user(
        &self,
        id: UserId,
        change: &Change,
        update: Update,
        tell: &Tell<User>,
    ) -> Result<Option<User>, StoreError> {
        let mut state = lock(&self.state);
        if let Change::Identity(identity) = change
            && state.is_taken(id, identity)
        {
            return Err(StoreError::Taken("identity"));
        }
        let Some((user, password)) = state.users.get_mut(&id) else {
            return Ok(None);
        };
        let mut ends = false;
        match change.clone() {
            Change::Details { name, metadata } => {
                user.name = name.unwrap_or_else(|| user.name.clone());
                user.metadata = metadata.unwrap_or_else(|| user.metadata.clone());
            }
            Change::Tags(tags) => user.tags = tags,
            Change::Identity(identity) => user.identity = identity,
            Change::Owner(owner) => user.owner = Some(owner),
            Change::Status(status) if status == user.status => return Ok(None),
            Change::Status(status) => {
                user.status = status;
                ends = status == Status::Disabled;
            }
            Change::Password { instead_of, .. } if instead_of != *password => return Ok(None),
            Change::Password { hash, .. } => {
                *password = hash;
                ends = true;
            }
        }
        user.update = Some(update);
        let user = user.clone();
        if ends {
            state.sign_out(id);
        }
        if matches!(change, Change::Identity(_)) {
            state.drop_resets(id);
        }
        self.events.record([tell(&user)]);
        Ok(Some(user))
    }

    async fn users(
        &self,
        scope: Scope,
        filter: &UserFilter,
        page: Page,
    ) -> Result<Listing<User>, StoreError> {
        let all: Vec<User> = {
            let state = lock(&self.state);
            let users = state.users.values().map(|(user, _)| user);
            users.filter(|user| lists(filter, user)).cloned().collect()
        };
        let mut seen = Vec::new();
        for user in all {
            if self.sees(scope, &user).await? {
                seen.push(user);
            }
        }
        seen.sort_by_key(|user| (user.created_at, user.id));
        Ok(page_of(seen, page))
    }

    async fn admin(&self) -> Result<Option<User>, StoreError> {
        let state = lock(&self.state);
        let admins = state.users.values().map(|(user, _)| user);
        let admins = admins.filter(|user| user.admin);
        Ok(admins
            .min_by_key(|user| (user.created_at, user.id))
            .cloned())
    }

    async fn record(&self, events: Vec<Event>) {
        self.events.record(events);
    }
}

#[async_trait]
impl People for Users {
    async fn person(&self, id: UserId) -> Result<Option<Person>, StoreError> {
        let state = lock(&self.state);
        Ok(state.users.get(&id).map(|(user, _)| Person {
            owner: user.owner,
            admin: user.admin,
        }))
    }

    async fn members(
        &self,
        group: GroupId,
        vouched: bool,
        filter: &UserFilter,
        page: Page,
    ) -> Result<Listing<User>, StoreError> {
        let everybody = Page {
            offset: 0,
            limit: u64::MAX,
        };
        let mut members = Vec::new();
        for user in self.users(Scope::Everybody, filter, everybody).await?.items {
            let policy = self.groups.policy(Subject::User(user.id), group).await?;
            if policy.is_some_and(|policy| policy.vouched || !vouched) {
                members.push(user);
            }
        }
        Ok(page_of(members, page))
    }
}

#[async_trait]
impl LoginStore for Users {
    async fn add_login(
        &self,
        login: &Login,
        password: &str,
        events: Vec<Event>,
    ) -> Result<bool, StoreError> {
        let mut state = lock(&self.state);
        let same = state
            .users
            .get(&login.user)
            .is_some_and(|it| it.1 == password);
        if !same || state.enabled(login.user).is_none() {
            return Ok(false);
        }
        state
            .logins
            .retain(|_, it| it.expires_at > login.created_at);
        let own = |it: &&Login| it.user == login.user;
        let mut times: Vec<_> = state
            .logins
            .values()
            .filter(own)
            .map(|it| it.created_at)
            .collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(last) = times.get(MAX_LOGINS as usize - 1) {
            state
                .logins
                .retain(|_, it| it.user != login.user || it.created_at > *last);
        }
        state.logins.insert(login.id, login.clone());
        self.events.record(events);
        Ok(true)
    }

    async fn login(&self, id: LoginId, now: Timestamp) -> Result<Option<User>, StoreError> {
        let state = lock(&self.state);
        let login = state.logins.get(&id).filter(|login| login.expires_at > now);
        Ok(login.and_then(|login| state.enabled(login.user)).cloned())
    }

    async fn rotate_login(
        &self,
        login: &Login,
        new: TokenId,
        now: Timestamp,
        events: Vec<Event>,
    ) -> Result<Rotated, StoreError> {
        let mut state = lock(&self.state);
        let Some(kept) = state.logins.get_mut(&login.id) else {
            return Ok(Rotated::Gone);
        };
        if kept.refresh != login.refresh || kept.expires_at <= now {
            state.logins.remove(&login.id);
            return Ok(Rotated::Reused);
        }
        kept.refresh = new;
        kept.expires_at = login.expires_at;
        self.events.record(events);
        Ok(Rotated::Done)
    }

    async fn end_login(&self, id: LoginId) -> Result<(), StoreError> {
        lock(&self.state).logins.remove(&id);
        Ok(())
    }
}

#[async_trait]
impl ResetStore for Users {
    async fn add_reset(
        &self,
        reset: &Reset,
        expired: Timestamp,
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        state
            .resets
            .retain(|_, kept| kept.reset.created_at >= expired);
        let kept = Kept {
            reset: reset.clone(),
            due_at: reset.user.map(|_| reset.created_at),
            attempts: 0,
            token: None,
        };
        state.resets.insert(reset.id, kept);
        self.events.record(events);
        Ok(())
    }

    async fn due_resets(&self, now: Timestamp, limit: u32) -> Result<Vec<DueReset>, StoreError> {
        let state = lock(&self.state);
        let mut due: Vec<_> = state
            .resets
            .values()
            .filter_map(|kept| {
                let at = kept.due_at.filter(|at| *at <= now)?;
                let due = DueReset {
                    id: kept.reset.id,
                    user: state.enabled(kept.reset.user?)?.clone(),
                    host: kept.reset.host.clone(),
                    created_at: kept.reset.created_at,
                    attempts: kept.attempts,
                };
                Some((at, due))
            })
            .collect();
        due.sort_by_key(|(at, _)| *at);
        due.truncate(limit as usize);
        Ok(due.into_iter().map(|(_, due)| due).collect())
    }

    async fn next_reset(&self) -> Result<Option<Timestamp>, StoreError> {
        let state = lock(&self.state);
        let kept = state.resets.values();
        let enabled = |kept: &&Kept| {
            kept.reset
                .user
                .is_some_and(|it| state.enabled(it).is_some())
        };
        Ok(kept.filter(enabled).filter_map(|kept| kept.due_at).min())
    }

    async fn arm_reset(
        &self,
        id: ResetId,
        token: &TokenHash,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        if let Some(kept) = lock(&self.state).resets.get_mut(&id) {
            kept.token = Some((*token, expires_at));
            kept.attempts += 1;
        }
        Ok(())
    }

    async fn reset_sent(&self, id: ResetId, events: Vec<Event>) -> Result<(), StoreError> {
        if let Some(kept) = lock(&self.state).resets.get_mut(&id) {
            kept.due_at = None;
        }
        self.events.record(events);
        Ok(())
    }

    async fn defer_reset(&self, id: ResetId, until: Timestamp) -> Result<(), StoreError> {
        if let Some(kept) = lock(&self.state).resets.get_mut(&id) {
            kept.due_at = Some(until);
        }
        Ok(())
    }

    async fn drop_reset(&self, id: ResetId) -> Result<(), StoreError> {
        lock(&self.state).resets.remove(&id);
        Ok(())
    }

    async fn reset_by_token(
        &self,
        token: &TokenHash,
        now: Timestamp,
    ) -> Result<Option<UserId>, StoreError> {
        Ok(lock(&self.state).armed(token, now))
    }

    async fn complete_reset(
        &self,
        token: &TokenHash,
        now: Timestamp,
        password: &str,
        tell: &Tell<User>,
    ) -> Result<Option<User>, StoreError> {
        let mut state = lock(&self.state);
        let found = state.armed(token, now);
        let Some((user, kept)) = found.and_then(|id| state.users.get_mut(&id)) else {
            return Ok(None);
        };
        password.clone_into(kept);
        user.update = Some(Update {
            at: now,
            by: user.id,
        });
        let user = user.clone();
        state.sign_out(user.id);
        self.events.record([tell(&user)]);
        Ok(Some(user))
    }
}
