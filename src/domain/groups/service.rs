//! Groups of users are made, looked at, changed, shut down and opened again.

use std::sync::Arc;

use async_trait::async_trait;

use crate::caller::Caller;
use crate::entity::{Status, Update};
use crate::identity::{GroupId, UserId};
use crate::listing::{Listing, Page};
use crate::policies::Action;
use crate::ports::StoreError;
use crate::refusal::Refusal;
use crate::users::{User, UserFilter};

use super::{
    Details, Direction, Group, GroupFilter, GroupQuery, GroupStore, NewGroup, PolicyStore, Subject,
    Tree, events,
};

/// What is asked about users.
#[async_trait]
pub trait People: Send + Sync {
    async fn person(&self, id: UserId) -> Result<Option<Person>, StoreError>;

    /// Who is in the group, or who of them is vouched for, in the order they were made.
    async fn members(
        &self,
        group: GroupId,
        vouched: bool,
        filter: &UserFilter,
        page: Page,
    ) -> Result<Listing<User>, StoreError>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Person {
    pub owner: Option<UserId>,
    pub admin: bool,
}

/// Groups of users, and what users may do on them: a part of the users service.
pub struct Groups {
    pub(super) groups: Arc<dyn GroupStore<GroupId>>,
    pub(super) policies: Arc<dyn PolicyStore<GroupId>>,
    pub(super) people: Arc<dyn People>,
}

impl Groups {
    #[must_use]
    pub fn new(
        groups: Arc<dyn GroupStore<GroupId>>,
        policies: Arc<dyn PolicyStore<GroupId>>,
        people: Arc<dyn People>,
    ) -> Self {
        Self {
            groups,
            policies,
            people,
        }
    }

    /// Makes a group, which is the caller's; an administrator may name another owner.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], also for a parent that the caller does not see; [`Refusal::Taken`] if the owner has a
    /// group of that name; [`Refusal::Denied`].
    pub async fn create(
        &self,
        caller: &Caller,
        new: NewGroup<GroupId>,
    ) -> Result<Group<GroupId>, Refusal> {
        let parent = match new.parent {
            Some(id) => Some(self.parent(caller, id).await?),
            None => None,
        };
        let group = new.make(caller, parent.as_ref())?;
        if group.owner != caller.user && self.people.person(group.owner).await?.is_none() {
            return Err(Refusal::invalid("owner_id", "no such user"));
        }
        let created = vec![events::group("group.create", &group)];
        self.groups
            .add_groups(std::slice::from_ref(&group), created)
            .await?;
        Ok(group)
    }

    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn view(&self, caller: &Caller, id: GroupId) -> Result<Group<GroupId>, Refusal> {
        let group = self.reach(caller, id, Action::GroupList).await?;
        let viewed = events::group("group.view", &group);
        self.policies.record(vec![viewed]).await;
        Ok(group)
    }

    /// # Errors
    /// [`Refusal::Invalid`]; [`Refusal::Taken`] if the owner has another group of that name;
    /// [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn update(
        &self,
        caller: &Caller,
        id: GroupId,
        details: &Details,
    ) -> Result<Group<GroupId>, Refusal> {
        details.check()?;
        self.reach(caller, id, Action::GroupUpdate).await?;
        let tell = |group: &Group<GroupId>| events::group("group.update", group);
        let update = Update::now(caller.user);
        let changed = self.groups.change_group(id, details, update, &tell).await?;
        changed.ok_or(Refusal::NotFound("group"))
    }

    /// Disables a group, so that nobody has a right over others by it, or enables it again.
    ///
    /// # Errors
    /// [`Refusal::Already`], [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn set_status(
        &self,
        caller: &Caller,
        id: GroupId,
        status: Status,
    ) -> Result<Group<GroupId>, Refusal> {
        self.reach(caller, id, Action::GroupDelete).await?;
        let tell = |group: &Group<GroupId>| events::removed("group.remove", group);
        let update = Update::now(caller.user);
        let changed = self
            .groups
            .set_group_status(id, status, update, &tell)
            .await?;
        changed.ok_or(Refusal::Already(match status {
            Status::Enabled => "the group is already enabled",
            Status::Disabled => "the group is already disabled",
        }))
    }

    /// Groups that the caller sees, in the order they were made.
    ///
    /// # Errors
    /// [`Refusal::Invalid`].
    pub async fn list(
        &self,
        caller: &Caller,
        query: &GroupQuery<GroupId>,
        page: Page,
    ) -> Result<Listing<Group<GroupId>>, Refusal> {
        let page = page.check()?;
        let filter = query.seen_by(caller);
        filter.check()?;
        let listing = self.groups.groups(&filter, page).await?;
        let listed = events::listed("group.list", query, listing.total, page);
        self.policies.record(vec![listed]).await;
        Ok(listing)
    }

    /// What is above or below a group, itself included, as far as the caller sees it. Returns the group, too, from
    /// which levels and paths are counted.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn related(
        &self,
        caller: &Caller,
        id: GroupId,
        direction: Direction,
        levels: Option<usize>,
        query: &GroupQuery<GroupId>,
        page: Page,
    ) -> Result<(Tree<GroupId>, Listing<Group<GroupId>>), Refusal> {
        let page = page.check()?;
        let tree = Tree {
            around: self.reach(caller, id, Action::GroupList).await?,
            direction,
            levels,
        };
        let filter = GroupFilter {
            tree: Some(tree.clone()),
            ..query.seen_by(caller)
        };
        filter.check()?;
        let listing = self.groups.groups(&filter, page).await?;
        let listed = events::listed("group.list", query, listing.total, page);
        self.policies.record(vec![listed]).await;
        Ok((tree, listing))
    }

    /// Groups that a user is in: all for the user himself, for others those that they see.
    ///
    /// # Errors
    /// [`Refusal::Invalid`].
    pub async fn memberships(
        &self,
        caller: &Caller,
        user: UserId,
        query: &GroupQuery<GroupId>,
        page: Page,
    ) -> Result<Listing<Group<GroupId>>, Refusal> {
        let page = page.check()?;
        let filter = match user == caller.user {
            true => query.filter(),
            false => query.seen_by(caller),
        };
        let filter = GroupFilter {
            subject: Some(Subject::User(user)),
            ..filter
        };
        filter.check()?;
        let listing = self.groups.groups(&filter, page).await?;
        // Whatever the name says, consumers find the user there.
        let user = ("channel_id", user.to_string());
        let listed = events::listed_by("group.list_by_user", user, query, listing.total, page);
        self.policies.record(vec![listed]).await;
        Ok(listing)
    }

    /// Who is in a group. That is for its owner, and for who holds `c_list` on it: they see whom rights over others
    /// reach, that is, who was brought in by somebody with a say over him. Administrators see all.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn members(
        &self,
        caller: &Caller,
        id: GroupId,
        filter: &UserFilter,
        page: Page,
    ) -> Result<Listing<User>, Refusal> {
        let page = page.check()?;
        filter.check()?;
        self.reach(caller, id, Action::ClientList).await?;
        let vouched = !caller.admin;
        let listing = self.people.members(id, vouched, filter, page).await?;
        let listed = events::members_listed(id, filter, listing.total, page);
        self.policies.record(vec![listed]).await;
        Ok(listing)
    }

    /// The group, if the caller may do `action` on it. Who may not is not told whether it is there.
    pub(super) async fn reach(
        &self,
        caller: &Caller,
        id: GroupId,
        action: Action,
    ) -> Result<Group<GroupId>, Refusal> {
        let group = match self.groups.group(id).await? {
            Some(group) if group.belongs_to(caller) => return Ok(group),
            Some(group) => group,
            None if caller.admin => return Err(Refusal::NotFound("group")),
            None => return Err(Refusal::Denied),
        };
        let user = Subject::User(caller.user);
        let standing = self.policies.standing(user, id).await?;
        let allowed = standing.is_some_and(|it| it.allows(caller.user, action));
        allowed.then_some(group).ok_or(Refusal::Denied)
    }

    async fn parent(&self, caller: &Caller, id: GroupId) -> Result<Group<GroupId>, Refusal> {
        match self.reach(caller, id, Action::GroupList).await {
            Err(Refusal::Denied | Refusal::NotFound(_)) => {
                Err(Refusal::invalid("parent_id", "no such group"))
            }
            found => found,
        }
    }
}
