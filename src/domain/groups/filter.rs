//! Which groups and policies a list has.

use crate::caller::Caller;
use crate::entity::Metadata;
use crate::identity::UserId;
use crate::listing::{StatusFilter, Visibility};
use crate::metadata::check_wanted;
use crate::policies::Action;
use crate::refusal::Refusal;

use super::{Group, GroupKey, Subject};

/// What somebody asks to see of groups: all that is given must hold.
#[derive(Clone, Debug)]
pub struct GroupQuery<I> {
    pub status: StatusFilter,
    /// The whole name.
    pub name: Option<String>,
    pub owner: Option<UserId>,
    /// Contained in that of the group.
    pub metadata: Option<Metadata>,
    /// Directly below this one.
    pub parent: Option<I>,
    pub visibility: Visibility,
}

impl<I> Default for GroupQuery<I> {
    fn default() -> Self {
        Self {
            status: StatusFilter::default(),
            name: None,
            owner: None,
            metadata: None,
            parent: None,
            visibility: Visibility::default(),
        }
    }
}

impl<I: GroupKey> GroupQuery<I> {
    /// Administrators see everybody's unless they want to see less.
    pub(crate) fn seen_by(&self, caller: &Caller) -> GroupFilter<I> {
        let everybodys = caller.admin && self.visibility == Visibility::All;
        GroupFilter {
            seen: (!everybodys).then_some(Seen {
                by: caller.user,
                visibility: self.visibility,
            }),
            ..self.filter()
        }
    }

    pub(crate) fn filter(&self) -> GroupFilter<I> {
        GroupFilter {
            status: self.status,
            name: self.name.clone(),
            owner: self.owner,
            metadata: self.metadata.clone(),
            parent: self.parent,
            ..GroupFilter::default()
        }
    }
}

/// All that is given must hold.
#[derive(Clone, Debug)]
pub struct GroupFilter<I> {
    pub status: StatusFilter,
    /// The whole name.
    pub name: Option<String>,
    pub owner: Option<UserId>,
    /// Contained in that of the group.
    pub metadata: Option<Metadata>,
    /// Directly below this one.
    pub parent: Option<I>,
    pub tree: Option<Tree<I>>,
    /// With a policy on it.
    pub subject: Option<Subject>,
    pub seen: Option<Seen>,
}

impl<I> Default for GroupFilter<I> {
    fn default() -> Self {
        Self {
            status: StatusFilter::Enabled,
            name: None,
            owner: None,
            metadata: None,
            parent: None,
            tree: None,
            subject: None,
            seen: None,
        }
    }
}

impl<I> GroupFilter<I> {
    /// # Errors
    /// [`Refusal::Invalid`] for more than can be searched for.
    pub fn check(&self) -> Result<(), Refusal> {
        self.metadata.as_ref().map_or(Ok(()), check_wanted)
    }
}

/// A group, and what is above or below it.
#[derive(Clone, Debug)]
pub struct Tree<I> {
    pub around: Group<I>,
    pub direction: Direction,
    /// So many levels away at most.
    pub levels: Option<usize>,
}

impl<I: GroupKey> Tree<I> {
    /// How far `group` is below the one in the middle; negative above it.
    #[must_use]
    pub fn level(&self, group: &Group<I>) -> isize {
        group.level().cast_signed() - self.around.level().cast_signed()
    }

    /// Whether it has `group`.
    #[must_use]
    pub fn has(&self, group: &Group<I>) -> bool {
        let related = match self.direction {
            Direction::Parents => self.around.path().starts_with(&group.path()),
            Direction::Children => group.path().starts_with(&self.around.path()),
        };
        let near = |levels| self.level(group).unsigned_abs() <= levels;
        related && self.levels.is_none_or(near)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Parents,
    Children,
}

/// What a user may see: `mine` is what he owns, `shared` is on what he has a policy that lets him see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub by: UserId,
    pub visibility: Visibility,
}

/// All that is given must hold.
#[derive(Clone, Copy, Debug)]
pub struct PolicyFilter<I> {
    pub owner: Option<UserId>,
    pub subject: Option<Subject>,
    pub object: Option<I>,
    /// Allowed by it, be it that another action implies it.
    pub action: Option<Action>,
}

impl<I> Default for PolicyFilter<I> {
    fn default() -> Self {
        Self {
            owner: None,
            subject: None,
            object: None,
            action: None,
        }
    }
}
