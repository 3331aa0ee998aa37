//! Groups: of users, and of things (those are called channels). What they are, who may do what on them, and
//! where they are kept.

pub(crate) mod events;
mod filter;
mod policy;
mod service;
mod sharing;
mod store;

use std::fmt::{Debug, Display};
use std::hash::Hash;

use crate::caller::Caller;
use crate::entity::{self, Metadata, Status, Update};
use crate::event::Stream;
use crate::identity::{ChannelId, GroupId, Timestamp, UserId};
use crate::refusal::Refusal;

pub use filter::{Direction, GroupFilter, GroupQuery, PolicyFilter, Seen, Tree};
pub use policy::{Policy, Standing, Subject};
pub use service::{Groups, People, Person};
pub use store::{GroupStore, PolicyStore, Tell};

/// The id of a group, which tells of what kind it is.
pub trait GroupKey:
    Copy + Eq + Hash + Ord + Debug + Display + Send + Sync + std::str::FromStr + 'static
{
    /// As refusals name it.
    const WHAT: &'static str;
    /// Where they, and policies on them, are announced.
    const STREAM: Stream;

    fn generate() -> Self;
    fn from_bytes(bytes: [u8; 16]) -> Self;
    fn as_bytes(&self) -> &[u8; 16];
}

macro_rules! group_key {
    ($id:ident, $what:literal, $stream:ident) => {
        impl GroupKey for $id {
            const WHAT: &'static str = $what;
            const STREAM: Stream = Stream::$stream;

            fn generate() -> Self {
                Self::generate()
            }

            fn from_bytes(bytes: [u8; 16]) -> Self {
                Self::from_bytes(bytes)
            }

            fn as_bytes(&self) -> &[u8; 16] {
                self.as_bytes()
            }
        }
    };
}

group_key!(GroupId, "group", Users);
group_key!(ChannelId, "channel", Things);

/// The deepest level of a tree; a group without a parent is on level 0.
pub const MAX_LEVEL: usize = 5;
/// Bytes of a description.
pub const MAX_DESCRIPTION: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub struct Group<I> {
    pub id: I,
    pub owner: UserId,
    /// From the root of its tree down to its parent. A group never moves, so there are no cycles.
    pub ancestors: Vec<I>,
    pub name: String,
    pub description: String,
    pub metadata: Metadata,
    pub status: Status,
    pub created_at: Timestamp,
    pub update: Option<Update>,
}

impl<I: GroupKey> Group<I> {
    #[must_use]
    pub fn parent(&self) -> Option<I> {
        self.ancestors.last().copied()
    }

    /// How far below the root of its tree.
    #[must_use]
    pub const fn level(&self) -> usize {
        self.ancestors.len()
    }

    /// From the root of its tree down to itself.
    #[must_use]
    pub fn path(&self) -> Vec<I> {
        let mut path = self.ancestors.clone();
        path.push(self.id);
        path
    }

    #[must_use]
    pub fn belongs_to(&self, caller: &Caller) -> bool {
        caller.admin || self.owner == caller.user
    }
}

/// A group to be made.
#[derive(Clone, Debug)]
pub struct NewGroup<I> {
    /// One is generated if none is given.
    pub id: Option<I>,
    /// The caller, if none is given. Only administrators make groups for others.
    pub owner: Option<UserId>,
    pub parent: Option<I>,
    pub name: String,
    pub description: String,
    pub metadata: Metadata,
    pub status: Status,
}

impl<I> Default for NewGroup<I> {
    fn default() -> Self {
        Self {
            id: None,
            owner: None,
            parent: None,
            name: String::new(),
            description: String::new(),
            metadata: Metadata::new(),
            status: Status::Enabled,
        }
    }
}

impl<I: GroupKey> NewGroup<I> {
    /// The group it becomes below `parent`, which is the one that [`NewGroup::parent`] names.
    ///
    /// # Errors
    /// [`Refusal::Invalid`]; [`Refusal::Denied`] for a group in the name of another.
    pub fn make(self, caller: &Caller, parent: Option<&Group<I>>) -> Result<Group<I>, Refusal> {
        check_name(&self.name)?;
        check_description(&self.description)?;
        entity::check_metadata(&self.metadata)?;
        let owner = self.owner.unwrap_or(caller.user);
        if owner != caller.user && !caller.admin {
            return Err(Refusal::Denied);
        }
        let ancestors = parent.map(Group::path).unwrap_or_default();
        if ancestors.len() > MAX_LEVEL {
            let reason = "at most 5 levels below the root of a tree";
            return Err(Refusal::invalid("parent_id", reason));
        }
        Ok(Group {
            id: self.id.unwrap_or_else(I::generate),
            owner,
            ancestors,
            name: self.name,
            description: self.description,
            metadata: self.metadata,
            status: self.status,
            created_at: Timestamp::now(),
            update: None,
        })
    }
}

/// What is to be changed of a group. What is not named stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    pub name: Option<String>,
    pub description: Option<String>,
    pub metadata: Option<Metadata>,
}

impl Details {
    /// # Errors
    /// [`Refusal::Invalid`].
    pub fn check(&self) -> Result<(), Refusal> {
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        if let Some(description) = &self.description {
            check_description(description)?;
        }
        self.metadata
            .as_ref()
            .map_or(Ok(()), entity::check_metadata)
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::invalid("name", "at least one character"));
    }
    entity::check_name("name", name)
}

fn check_description(description: &str) -> Result<(), Refusal> {
    // Databases keep no NUL in a text.
    if description.len() > MAX_DESCRIPTION || description.contains('\0') {
        return Err(Refusal::invalid("description", "at most 16 KiB of text"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
