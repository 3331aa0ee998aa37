//! Where groups and policies are kept. A change and its events are kept together, or neither is.

use async_trait::async_trait;

use crate::entity::{Status, Update};
use crate::event::Event;
use crate::identity::UserId;
use crate::listing::{Listing, Page};
use crate::policies::{Action, Actions};
use crate::ports::StoreError;

use super::{Details, Group, GroupFilter, GroupKey, Policy, PolicyFilter, Standing, Subject};

/// Makes the event of a change from what is kept once it is made, so that of two changes at one time the later
/// one tells of both.
pub type Tell<T> = dyn Fn(&T) -> Event + Send + Sync;

#[async_trait]
pub trait GroupStore<I: GroupKey>: Send + Sync {
    /// All, or none.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: one's `id` is another's, or else the owner has another group of that `name`.
    async fn add_groups(&self, groups: &[Group<I>], events: Vec<Event>) -> Result<(), StoreError>;

    /// The group as it is then; `None` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: the owner has another group of that `name`.
    async fn change_group(
        &self,
        id: I,
        details: &Details,
        update: Update,
        tell: &Tell<Group<I>>,
    ) -> Result<Option<Group<I>>, StoreError>;

    /// The group as it is then; `None` if it is not there, or in that state already.
    async fn set_group_status(
        &self,
        id: I,
        status: Status,
        update: Update,
        tell: &Tell<Group<I>>,
    ) -> Result<Option<Group<I>>, StoreError>;

    async fn group(&self, id: I) -> Result<Option<Group<I>>, StoreError>;

    /// In the order they were made.
    async fn groups(
        &self,
        filter: &GroupFilter<I>,
        page: Page,
    ) -> Result<Listing<Group<I>>, StoreError>;
}

#[async_trait]
pub trait PolicyStore<I: GroupKey>: Send + Sync {
    /// Adds policies, all or none. Those that are there get the new actions, `owner` as who changed them and
    /// `created_at` as when; they keep who made them, and stay vouched for. Returns them as they are then.
    async fn put_policies(
        &self,
        policies: &[Policy<I>],
        tell: &Tell<Policy<I>>,
    ) -> Result<Vec<Policy<I>>, StoreError>;

    /// Adds policies, all or none, but those that are there: they stay as they are. Returns, and tells of, what was
    /// added.
    async fn add_policies(
        &self,
        policies: &[Policy<I>],
        tell: &Tell<Policy<I>>,
    ) -> Result<Vec<Policy<I>>, StoreError>;

    /// The policy as it is then; `None` if it is not there.
    async fn change_policy(
        &self,
        subject: Subject,
        object: I,
        actions: Actions,
        update: Update,
        tell: &Tell<Policy<I>>,
    ) -> Result<Option<Policy<I>>, StoreError>;

    /// Removes those that are there, and returns them as they were. All are told of, or nothing has changed.
    async fn remove_policies(
        &self,
        pairs: &[(Subject, I)],
        tell: &Tell<Policy<I>>,
    ) -> Result<Vec<Policy<I>>, StoreError>;

    async fn policy(&self, subject: Subject, object: I) -> Result<Option<Policy<I>>, StoreError>;

    /// In the order they were made.
    async fn policies(
        &self,
        filter: &PolicyFilter<I>,
        page: Page,
    ) -> Result<Listing<Policy<I>>, StoreError>;

    /// How `subject` stands to `object`; `None` if there is no such group.
    async fn standing(&self, subject: Subject, object: I) -> Result<Option<Standing>, StoreError>;

    /// Whether `user` has a policy that allows `action` on an enabled group that `member` is in by a vouched one.
    async fn reaches(
        &self,
        user: UserId,
        action: Action,
        member: Subject,
    ) -> Result<bool, StoreError>;

    /// Keeps events of what changes nothing, if they can be kept: whoever is let or shown something is not to suffer
    /// because nobody can be told of it.
    async fn record(&self, events: Vec<Event>);
}
