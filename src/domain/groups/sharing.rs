//! What users may do on groups, and to each other by them.

use crate::caller::{Caller, Question};
use crate::entity::Update;
use crate::identity::{GroupId, Timestamp, UserId};
use crate::listing::{Listing, Page};
use crate::policies::{Action, Actions};
use crate::refusal::Refusal;

use super::{Groups, Policy, PolicyFilter, Subject, events};

impl Groups {
    /// Lets a user do `actions` on a group, in place of what he may do there: he is a member then.
    ///
    /// That is for who owns the group, or holds `g_add` on it and all of `actions`. What others have allowed the
    /// user is theirs to replace, and the owner's of the group.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], also for a user that there is not; [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn add_policy(
        &self,
        caller: &Caller,
        subject: UserId,
        object: GroupId,
        actions: Actions,
    ) -> Result<Policy<GroupId>, Refusal> {
        check_actions(actions)?;
        self.check_give(caller, object, actions.with(Action::GroupAdd))
            .await?;
        if let Some(before) = self.policies.policy(Subject::User(subject), object).await? {
            self.check_theirs(caller, &before).await?;
        }
        let policy = Policy {
            subject: Subject::User(subject),
            object,
            actions,
            owner: caller.user,
            vouched: self.has_a_say(caller, subject).await?,
            created_at: Timestamp::now(),
            update: None,
        };
        let kept = self
            .policies
            .put_policies(&[policy], &events::policy_added)
            .await?;
        Ok(kept.into_iter().next().unwrap_or(policy))
    }

    /// Changes what a user may do on a group where he may do something. That is for who made the policy and holds
    /// `actions`, and for the owner of the group.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn change_policy(
        &self,
        caller: &Caller,
        subject: UserId,
        object: GroupId,
        actions: Actions,
    ) -> Result<Policy<GroupId>, Refusal> {
        const UNKNOWN: Refusal = Refusal::NotFound("policy");
        check_actions(actions)?;
        let subject = Subject::User(subject);
        let before = self.policies.policy(subject, object).await?;
        self.check_theirs(caller, &before.ok_or(UNKNOWN)?).await?;
        self.check_give(caller, object, actions).await?;
        let update = Update::now(caller.user);
        let tell = &events::policy_updated;
        let changed = self
            .policies
            .change_policy(subject, object, actions, update, tell)
            .await?;
        changed.ok_or(UNKNOWN)
    }

    /// Takes away what a user may do on a group; that he may do nothing there is fine, too. That is for who made
    /// the policy, and for the owner of the group.
    ///
    /// # Errors
    /// [`Refusal::Denied`].
    pub async fn remove_policy(
        &self,
        caller: &Caller,
        subject: UserId,
        object: GroupId,
    ) -> Result<(), Refusal> {
        let subject = Subject::User(subject);
        let Some(policy) = self.policies.policy(subject, object).await? else {
            return Ok(());
        };
        self.check_theirs(caller, &policy).await?;
        self.policies
            .remove_policies(&[(subject, object)], &events::policy_deleted)
            .await?;
        Ok(())
    }

    /// Policies in the order they were made. Administrators see everybody's, others those they have made.
    ///
    /// # Errors
    /// [`Refusal::Invalid`]; [`Refusal::Denied`] if another owner is named.
    pub async fn policies(
        &self,
        caller: &Caller,
        filter: &PolicyFilter<GroupId>,
        page: Page,
    ) -> Result<Listing<Policy<GroupId>>, Refusal> {
        let page = page.check()?;
        let mut theirs = *filter;
        if !caller.admin {
            if filter.owner.is_some_and(|owner| owner != caller.user) {
                return Err(Refusal::Denied);
            }
            theirs.owner = Some(caller.user);
        }
        let listing = self.policies.policies(&theirs, page).await?;
        let listed = events::policies_listed(filter, listing.total, page);
        self.policies.record(vec![listed]).await;
        Ok(listing)
    }

    /// May `subject`, whom the question names as it likes, do what it asks for? Administrators may do everything,
    /// and `things` and `users`, which stand for all there are, are for them alone.
    ///
    /// # Errors
    /// [`Refusal::Denied`]; [`Refusal::Invalid`] for an action, entity type or object that there cannot be.
    pub async fn authorize(
        &self,
        subject: &Caller,
        question: &Question<'_>,
    ) -> Result<(), Refusal> {
        let action: Action = parse("action", question.action)?;
        if !["client", "group"].contains(&question.entity_type) {
            return Err(Refusal::invalid("entity_type", "choose client or group"));
        }
        let allowed = match question.object {
            "things" | "users" => subject.admin,
            object if question.entity_type == "group" => {
                let group = parse("object", object)?;
                subject.admin || self.holds(subject, group, action).await?
            }
            object => {
                let user = parse("object", object)?;
                self.may_reach(subject, user, action).await?
            }
        };
        if !allowed {
            return Err(Refusal::Denied);
        }
        self.policies
            .record(vec![events::authorized(question)])
            .await;
        Ok(())
    }

    async fn holds(
        &self,
        caller: &Caller,
        group: GroupId,
        action: Action,
    ) -> Result<bool, Refusal> {
        let user = Subject::User(caller.user);
        let standing = self.policies.standing(user, group).await?;
        Ok(standing.is_some_and(|it| it.allows(caller.user, action)))
    }

    /// To oneself, to those one owns, and to those in a group where one has that right. Administrators are seen by
    /// such a right, not touched.
    async fn may_reach(
        &self,
        caller: &Caller,
        user: UserId,
        action: Action,
    ) -> Result<bool, Refusal> {
        if caller.admin || user == caller.user {
            return Ok(true);
        }
        let Some(person) = self.people.person(user).await? else {
            return Ok(false);
        };
        if person.admin && action != Action::ClientList {
            return Ok(false);
        }
        if person.owner == Some(caller.user) {
            return Ok(true);
        }
        let member = Subject::User(user);
        Ok(self.policies.reaches(caller.user, action, member).await?)
    }

    /// Whether the caller may make `subject` somebody whom others in a group have rights over.
    async fn has_a_say(&self, caller: &Caller, subject: UserId) -> Result<bool, Refusal> {
        match self.people.person(subject).await? {
            Some(_) => self.may_reach(caller, subject, Action::ClientShare).await,
            None => Err(Refusal::invalid("subject", "no such user")),
        }
    }

    /// Whether `actions` on the group are the caller's to give.
    async fn check_give(
        &self,
        caller: &Caller,
        group: GroupId,
        actions: Actions,
    ) -> Result<(), Refusal> {
        let user = Subject::User(caller.user);
        let standing = self.policies.standing(user, group).await?;
        let held = match standing {
            None if caller.admin => return Err(Refusal::NotFound("group")),
            None => false,
            Some(_) if caller.admin => true,
            Some(standing) => actions
                .iter()
                .all(|action| standing.allows(caller.user, action)),
        };
        held.then_some(()).ok_or(Refusal::Denied)
    }

    /// Whether the policy is the caller's to change or remove.
    async fn check_theirs(&self, caller: &Caller, policy: &Policy<GroupId>) -> Result<(), Refusal> {
        if caller.admin || policy.owner == caller.user {
            return Ok(());
        }
        match self.groups.group(policy.object).await? {
            Some(group) if group.owner == caller.user => Ok(()),
            _ => Err(Refusal::Denied),
        }
    }
}

fn check_actions(actions: Actions) -> Result<(), Refusal> {
    match actions.is_empty() {
        true => Err(Refusal::invalid("actions", "at least one")),
        false => Ok(()),
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &'static str,
    text: &str,
) -> Result<T, Refusal> {
    let wrong = |error: T::Err| Refusal::invalid(field, error.to_string());
    text.parse().map_err(wrong)
}
