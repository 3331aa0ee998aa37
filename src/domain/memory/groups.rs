//! Groups and policies in memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Mutex;

use async_trait::async_trait;

use crate::entity::{Status, Update};
use crate::event::Event;
use crate::groups::{
    Details, Group, GroupFilter, GroupKey, GroupStore, Policy, PolicyFilter, PolicyStore, Seen,
    Standing, Subject, Tell,
};
use crate::identity::UserId;
use crate::listing::{Listing, Page, Visibility};
use crate::metadata;
use crate::policies::{Action, Actions};
use crate::ports::StoreError;

use super::{Events, lock, page_of};

/// Groups of one kind, and the policies on them.
pub struct Groups<I> {
    state: Mutex<State<I>>,
    events: Events,
}

struct State<I> {
    groups: BTreeMap<I, Group<I>>,
    policies: BTreeMap<(Subject, I), Policy<I>>,
}

impl<I: GroupKey> Groups<I> {
    #[must_use]
    pub fn new(events: Events) -> Self {
        let state = State {
            groups: BTreeMap::new(),
            policies: BTreeMap::new(),
        };
        Self {
            state: Mutex::new(state),
            events,
        }
    }

    /// The enabled objects where a subject may publish or subscribe.
    pub(crate) fn open_to(&self, subject: Subject) -> Vec<I> {
        let state = lock(&self.state);
        let open = state.groups.values().filter(|group| {
            let actions = state.actions(subject, group.id);
            let talks = [Action::MessageRead, Action::MessageWrite];
            group.status == Status::Enabled && talks.into_iter().any(|it| actions.allow(it))
        });
        open.map(|group| group.id).collect()
    }
}

impl<I: GroupKey> State<I> {
    fn is_taken(&self, group: &Group<I>) -> bool {
        let same = |other: &Group<I>| other.owner == group.owner && other.name == group.name;
        self.groups
            .values()
            .any(|other| other.id != group.id && same(other))
    }

    fn actions(&self, subject: Subject, object: I) -> Actions {
        let policy = self.policies.get(&(subject, object));
        policy.map_or_else(Actions::default, |policy| policy.actions)
    }

    fn sees(&self, seen: Seen, group: &Group<I>) -> bool {
        let mine = group.owner == seen.by;
        let shared = self
            .actions(Subject::User(seen.by), group.id)
            .allow(Action::GroupList);
        match seen.visibility {
            Visibility::Mine => mine,
            Visibility::Shared => shared,
            Visibility::All => mine || shared,
        }
    }

    fn lists(&self, filter: &GroupFilter<I>, group: &Group<I>) -> bool {
        let in_it = |subject: Subject| self.policies.contains_key(&(subject, group.id));
        filter.status.includes(group.status)
            && filter.name.as_ref().is_none_or(|it| *it == group.name)
            && filter.owner.is_none_or(|it| it == group.owner)
            && filter.parent.is_none_or(|it| group.parent() == Some(it))
            && filter.tree.as_ref().is_none_or(|tree| tree.has(group))
            && filter.subject.is_none_or(in_it)
            && filter.seen.is_none_or(|seen| self.sees(seen, group))
            && filter
                .metadata
                .as_ref()
                .is_none_or(|wanted| metadata::contains(&group.metadata, wanted))
    }
}

#[async_trait]
impl<I: GroupKey> GroupStore<I> for Groups<I> {
    async fn add_groups(&self, groups: &[Group<I>], events: Vec<Event>) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        let before = state.groups.clone();
        for group in groups {
            let there = state.groups.contains_key(&group.id);
            if there || state.is_taken(group) {
                state.groups = before;
                return Err(StoreError::Taken(if there { "id" } else { "name" }));
            }
            state.groups.insert(group.id, group.clone());
        }
        self.events.record(events);
        Ok(())
    }

    async fn change_group(
        &self,
        id: I,
        details: &Details,
        update: Update,
        tell: &Tell<Group<I>>,
    ) -> Result<Option<Group<I>>, StoreError> {
        let mut state = lock(&self.state);
        let Some(mut group) = state.groups.get(&id).cloned() else {
            return Ok(None);
        };
        let details = details.clone();
        group.name = details.name.unwrap_or(group.name);
        group.description = details.description.unwrap_or(group.description);
        group.metadata = details.metadata.unwrap_or(group.metadata);
        group.update = Some(update);
        if state.is_taken(&group) {
            return Err(StoreError::Taken("name"));
        }
        state.groups.insert(id, group.clone());
        self.events.record([tell(&group)]);
        Ok(Some(group))
    }

    async fn set_group_status(
        &self,
        id: I,
        status: Status,
        update: Update,
        tell: &Tell<Group<I>>,
    ) -> Result<Option<Group<I>>, StoreError> {
        let mut state = lock(&self.state);
        let other = |group: &&mut Group<I>| group.status != status;
        let Some(group) = state.groups.get_mut(&id).filter(other) else {
            return Ok(None);
        };
        group.status = status;
        group.update = Some(update);
        self.events.record([tell(group)]);
        Ok(Some(group.clone()))
    }

    async fn group(&self, id: I) -> Result<Option<Group<I>>, StoreError> {
        Ok(lock(&self.state).groups.get(&id).cloned())
    }

    async fn groups(
        &self,
        filter: &GroupFilter<I>,
        page: Page,
    ) -> Result<Listing<Group<I>>, StoreError> {
        let state = lock(&self.state);
        let listed = |group: &&Group<I>| state.lists(filter, group);
        let mut groups: Vec<_> = state.groups.values().filter(listed).cloned().collect();
        groups.sort_by_key(|group| (group.created_at, group.id));
        Ok(page_of(groups, page))
    }
}

#[async_trait]
impl<I: GroupKey> PolicyStore<I> for Groups<I> {
    async fn put_policies(
        &self,
        policies: &[Policy<I>],
        tell: &Tell<Policy<I>>,
    ) -> Result<Vec<Policy<I>>, StoreError> {
        let mut state = lock(&self.state);
        let mut kept = Vec::with_capacity(policies.len());
        for policy in policies {
            let pair = (policy.subject, policy.object);
            let policy = match state.policies.get(&pair) {
                Some(before) => Policy {
                    actions: policy.actions,
                    vouched: policy.vouched || before.vouched,
                    update: Some(Update {
                        at: policy.created_at,
                        by: policy.owner,
                    }),
                    ..*before
                },
                None => *policy,
            };
            state.policies.insert(pair, policy);
            kept.push(policy);
        }
        self.events.record(kept.iter().map(tell));
        Ok(kept)
    }

    async fn add_policies(
        &self,
        policies: &[Policy<I>],
        tell: &Tell<Policy<I>>,
    ) -> Result<Vec<Policy<I>>, StoreError> {
        let mut state = lock(&self.state);
        let mut added = Vec::new();
        for policy in policies {
            let pair = (policy.subject, policy.object);
            if let Entry::Vacant(place) = state.policies.entry(pair) {
                added.push(*place.insert(*policy));
            }
        }
        self.events.record(added.iter().map(tell));
        Ok(added)
    }

    async fn change_policy(
        &self,
        subject: Subject,
        object: I,
        actions: Actions,
        update: Update,
        tell: &Tell<Policy<I>>,
    ) -> Result<Option<Policy<I>>, StoreError> {
        let mut state = lock(&self.state);
        let Some(policy) = state.policies.get_mut(&(subject, object)) else {
            return Ok(None);
        };
        policy.actions = actions;
        policy.update = Some(update);
        self.events.record([tell(policy)]);
        Ok(Some(*policy))
    }

    async fn remove_policies(
        &self,
        pairs: &[(Subject, I)],
        tell: &Tell<Policy<I>>,
    ) -> Result<Vec<Policy<I>>, StoreError> {
        let mut state = lock(&self.state);
        let there = pairs.iter().filter_map(|pair| state.policies.remove(pair));
        let removed: Vec<_> = there.collect();
        self.events.record(removed.iter().map(tell));
        Ok(removed)
    }

    async fn policy(&self, subject: Subject, object: I) -> Result<Option<Policy<I>>, StoreError> {
        let state = lock(&self.state);
        Ok(state.policies.get(&(subject, object)).copied())
    }

    async fn policies(
        &self,
        filter: &PolicyFilter<I>,
        page: Page,
    ) -> Result<Listing<Policy<I>>, StoreError> {
        let listed = |policy: &&Policy<I>| {
            filter.owner.is_none_or(|it| it == policy.owner)
                && filter.subject.is_none_or(|it| it == policy.subject)
                && filter.object.is_none_or(|it| it == policy.object)
                && filter.action.is_none_or(|it| policy.actions.allow(it))
        };
        let state = lock(&self.state);
        let mut policies: Vec<_> = state.policies.values().filter(listed).copied().collect();
        let bytes = |policy: &Policy<I>| (*policy.subject.as_bytes(), policy.object);
        policies.sort_by_key(|policy| (policy.created_at, bytes(policy)));
        Ok(page_of(policies, page))
    }

    async fn standing(&self, subject: Subject, object: I) -> Result<Option<Standing>, StoreError> {
        let state = lock(&self.state);
        let standing = |group: &Group<I>| Standing {
            owner: group.owner,
            status: group.status,
            actions: state.actions(subject, object),
        };
        Ok(state.groups.get(&object).map(standing))
    }

    async fn reaches(
        &self,
        user: UserId,
        action: Action,
        member: Subject,
    ) -> Result<bool, StoreError> {
        let state = lock(&self.state);
        let reaches = |group: &Group<I>| {
            let in_it = state.policies.get(&(member, group.id));
            group.status == Status::Enabled
                && in_it.is_some_and(|policy| policy.vouched)
                && state.actions(Subject::User(user), group.id).allow(action)
        };
        Ok(state.groups.values().any(reaches))
    }

    async fn record(&self, events: Vec<Event>) {
        self.events.record(events);
    }
}
