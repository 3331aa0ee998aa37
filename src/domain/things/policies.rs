//! What things, and users, may do on channels.

use crate::access::Revoked;
use crate::caller::{Caller, Question};
use crate::entity::Update;
use crate::groups::{PolicyFilter, Subject, events};
use crate::identity::{ChannelId, Secret, ThingId, Timestamp, UserId};
use crate::policies::{Action, Actions};
use crate::refusal::Refusal;

use super::{Channel, Listing, Page, Policy, Things, check_batch};

/// What a policy allows that names nothing.
pub const DEFAULT_ACTIONS: [Action; 2] = [Action::MessageWrite, Action::MessageRead];
const NOT_CONNECTED: Refusal = Refusal::NotFound("connection of that thing and channel");

impl Things {
    /// Lets every one of `subjects` do `actions` on every one of `channels`, in place of what it may do there: all
    /// of them, or none.
    ///
    /// That is for who owns the channel, or holds `g_add` on it and all of `actions`; and owns the thing or holds
    /// `c_share` on it, or on the user.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Denied`], [`Refusal::Invalid`].
    pub async fn connect(
        &self,
        caller: &Caller,
        subjects: &[Subject],
        channels: &[ChannelId],
        actions: Actions,
    ) -> Result<Vec<Policy>, Refusal> {
        let policies = self.policies_of(caller, subjects, channels, actions);
        let policies = policies.await?;
        let store = &self.stores.policies;
        let policies = store.put_policies(&policies, &events::policy_added).await?;
        // Whatever was there before, and whoever changed it meanwhile: no more than this is left.
        self.reduced(&policies);
        Ok(policies)
    }

    /// As [`Things::connect`], but a subject that may do something on a channel may do just that from then on too.
    /// Returns what was added.
    ///
    /// # Errors
    /// As of [`Things::connect`].
    pub async fn connect_missing(
        &self,
        caller: &Caller,
        subjects: &[Subject],
        channels: &[ChannelId],
        actions: Actions,
    ) -> Result<Vec<Policy>, Refusal> {
        let policies = self.policies_of(caller, subjects, channels, actions);
        let policies = policies.await?;
        let store = &self.stores.policies;
        Ok(store.add_policies(&policies, &events::policy_added).await?)
    }

    /// The policies that let all subjects do `actions` on all channels, if they are the caller's to make.
    async fn policies_of(
        &self,
        caller: &Caller,
        subjects: &[Subject],
        channels: &[ChannelId],
        actions: Actions,
    ) -> Result<Vec<Policy>, Refusal> {
        check_actions(actions)?;
        check_batch("subjects", subjects.len())?;
        check_batch("objects", subjects.len().saturating_mul(channels.len()))?;
        for &subject in subjects {
            self.check_share(caller, subject).await?;
        }
        let mut policies = Vec::with_capacity(subjects.len() * channels.len());
        for &channel in channels {
            self.check_add(caller, channel, actions).await?;
            policies.extend(subjects.iter().map(|&subject| Policy {
                subject,
                object: channel,
                actions,
                owner: caller.user,
                vouched: true,
                created_at: Timestamp::now(),
                update: None,
            }));
        }
        Ok(policies)
    }

    /// Changes what a subject may do on a channel where it may do something. That is for who may remove the policy
    /// and give `actions`.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is no such policy, or none that is the caller's business;
    /// [`Refusal::Denied`], [`Refusal::Invalid`].
    pub async fn change_policy(
        &self,
        caller: &Caller,
        subject: Subject,
        channel: ChannelId,
        actions: Actions,
    ) -> Result<Policy, Refusal> {
        check_actions(actions)?;
        self.policy_for(caller, subject, channel).await?;
        self.check_give(caller, channel, actions).await?;
        let update = Update::now(caller.user);
        let store = &self.stores.policies;
        let changed = store
            .change_policy(subject, channel, actions, update, &events::policy_updated)
            .await?;
        let policy = changed.ok_or(NOT_CONNECTED)?;
        self.reduced(std::slice::from_ref(&policy));
        Ok(policy)
    }

    /// Takes away what `subjects` may do on `channels`. That is for who made the policies, and for owners of the
    /// channels or things.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if one of the pairs is not connected, or not by the caller; then nothing has changed.
    pub async fn disconnect(
        &self,
        caller: &Caller,
        subjects: &[Subject],
        channels: &[ChannelId],
    ) -> Result<(), Refusal> {
        check_batch("subjects", subjects.len())?;
        check_batch("objects", subjects.len().saturating_mul(channels.len()))?;
        let mut pairs = Vec::with_capacity(subjects.len() * channels.len());
        for &channel in channels {
            for &subject in subjects {
                self.policy_for(caller, subject, channel).await?;
                pairs.push((subject, channel));
            }
        }
        let store = &self.stores.policies;
        store
            .remove_policies(&pairs, &events::policy_deleted)
            .await?;
        self.revoke(pairs.into_iter().map(|(subject, channel)| {
            let left = super::Actions::NONE;
            (subject, channel, left)
        }));
        Ok(())
    }

    /// Policies in the order they were made. Administrators see everybody's, others those they have made.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a page that is too large; [`Refusal::Denied`] if another owner is named.
    pub async fn list_policies(
        &self,
        caller: &Caller,
        mut filter: PolicyFilter<ChannelId>,
        page: Page,
    ) -> Result<Listing<Policy>, Refusal> {
        let page = page.check()?;
        let asked = filter;
        if !caller.admin {
            if filter.owner.is_some_and(|owner| owner != caller.user) {
                return Err(Refusal::Denied);
            }
            filter.owner = Some(caller.user);
        }
        let listing = self.stores.policies.policies(&filter, page).await?;
        self.announce(events::policies_listed(&asked, listing.total, page))
            .await;
        Ok(listing)
    }

    /// Whom a policy on `channel` is about whose subject is named by an id alone: the thing or, if there is no such
    /// policy, the user.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn subject_on(&self, channel: ChannelId, id: ThingId) -> Result<Subject, Refusal> {
        let (thing, user) = (
            Subject::Thing(id),
            Subject::User(UserId::from_bytes(*id.as_bytes())),
        );
        let policies = &self.stores.policies;
        let of_thing = policies.policy(thing, channel).await?.is_some();
        let of_user = !of_thing && policies.policy(user, channel).await?.is_some();
        Ok(if of_user { user } else { thing })
    }

    /// Whom an id means that stands alone: a thing or, if there is none, a user.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn subject_named(&self, id: ThingId) -> Result<Subject, Refusal> {
        let found = self.stores.things.thing(id).await?;
        Ok(match found {
            Some(_) => Subject::Thing(id),
            None => Subject::User(UserId::from_bytes(*id.as_bytes())),
        })
    }

    /// Whether the caller has a say over the subject.
    async fn check_share(&self, caller: &Caller, subject: Subject) -> Result<(), Refusal> {
        match subject {
            Subject::Thing(id) => {
                self.thing_for(caller, id, Action::ClientShare).await?;
                Ok(())
            }
            Subject::User(_) if caller.admin => Ok(()),
            Subject::User(id) if id == caller.user => Ok(()),
            Subject::User(id) => {
                let by = Secret::new(caller.user.to_string());
                let question = Question {
                    subject: &by,
                    object: &id.to_string(),
                    action: Action::ClientShare.as_str(),
                    entity_type: "client",
                };
                self.users.authorize(question).await
            }
        }
    }

    /// Whether the caller may add a policy with these actions to the channel.
    async fn check_add(
        &self,
        caller: &Caller,
        id: ChannelId,
        actions: Actions,
    ) -> Result<(), Refusal> {
        // Who may not even see it is to know of nothing.
        let channel = self.channel_for(caller, id, Action::GroupList).await?;
        let may_add = self.may(caller, &channel, Actions::default().with(Action::GroupAdd));
        match may_add.await? && self.may(caller, &channel, actions).await? {
            true => Ok(()),
            false => Err(Refusal::Denied),
        }
    }

    /// Whether the caller holds these actions, so that they are the caller's to give.
    async fn check_give(
        &self,
        caller: &Caller,
        id: ChannelId,
        actions: Actions,
    ) -> Result<(), Refusal> {
        let found = self.stores.channels.group(id).await?;
        let channel = found.ok_or(Refusal::NotFound("channel"))?;
        match self.may(caller, &channel, actions).await? {
            true => Ok(()),
            false => Err(Refusal::Denied),
        }
    }

    async fn may(
        &self,
        caller: &Caller,
        channel: &Channel,
        actions: Actions,
    ) -> Result<bool, Refusal> {
        if channel.belongs_to(caller) {
            return Ok(true);
        }
        let user = Subject::User(caller.user);
        let standing = self.stores.policies.standing(user, channel.id).await?;
        Ok(standing.is_some_and(|it| actions.iter().all(|action| it.allows(caller.user, action))))
    }

    /// The policy, if it is the caller's to change or remove.
    async fn policy_for(
        &self,
        caller: &Caller,
        subject: Subject,
        channel: ChannelId,
    ) -> Result<Policy, Refusal> {
        let found = self.stores.policies.policy(subject, channel).await?;
        let Some(policy) = found else {
            return Err(self.not_connected(caller, subject, channel).await);
        };
        if caller.admin || policy.owner == caller.user {
            return Ok(policy);
        }
        let channel = self.stores.channels.group(channel).await?;
        if channel.is_some_and(|it| it.belongs_to(caller)) {
            return Ok(policy);
        }
        if let Subject::Thing(thing) = subject {
            let thing = self.stores.things.thing(thing).await?;
            if thing.is_some_and(|it| it.owner == caller.user) {
                return Ok(policy);
            }
        }
        Err(NOT_CONNECTED)
    }

    /// Tells who may know it which of the two is not there.
    async fn not_connected(
        &self,
        caller: &Caller,
        subject: Subject,
        channel: ChannelId,
    ) -> Refusal {
        if let Subject::Thing(thing) = subject
            && let Err(refusal) = self.thing_for(caller, thing, Action::ClientList).await
        {
            return refusal;
        }
        let channel = self.channel_for(caller, channel, Action::GroupList).await;
        channel.err().unwrap_or(NOT_CONNECTED)
    }

    /// No more than what the policies say is left to things.
    fn reduced(&self, policies: &[Policy]) {
        let left = policies
            .iter()
            .map(|it| (it.subject, it.object, it.actions.into()));
        self.revoke(left.filter(|(_, _, left)| *left != super::Actions::ALL));
    }

    fn revoke(&self, left: impl Iterator<Item = (Subject, ChannelId, super::Actions)>) {
        let revoked: Vec<Revoked> = left
            .filter_map(|(subject, channel, left)| match subject {
                Subject::Thing(thing) => Some(Revoked::Grant {
                    thing,
                    channel,
                    left,
                }),
                Subject::User(_) => None,
            })
            .collect();
        if !revoked.is_empty() {
            self.revocations.revoked(&revoked);
        }
    }
}

fn check_actions(actions: Actions) -> Result<(), Refusal> {
    match actions.is_empty() {
        true => Err(Refusal::invalid("actions", "at least one")),
        false => Ok(()),
    }
}
