//! Lists: what is in them, in the order it was made, and how much that is.
//!
//! Whatever can be listed is in the list of all of its kind and status, and in those of its owner, its name, its
//! tags, each value of its metadata and each group that it is a member of. So a page is a range of one index,
//! whatever is asked for ([`pages`]); what has to be in several lists is looked up in the others, beginning with the
//! shortest. Of long lists it is known how many entries they have from one moment to the next ([`spans`]): they are
//! not counted to tell how long they are, nor to find what is far behind their beginning.

mod backlog;
mod entries;
mod pages;
mod spans;

use rollcall_domain::entity::{Metadata, Status};
use rollcall_domain::groups::Group;
use rollcall_domain::identity::Timestamp;
use rollcall_domain::listing::StatusFilter;
use rollcall_domain::things::Thing;
use rollcall_domain::users::User;
use sha2::{Digest, Sha256};

use crate::groups::Tables;
use crate::metadata::{self, Kind};

pub(crate) use backlog::work_off;
pub(crate) use entries::{Member, add, alter, join, leave};
pub(crate) use pages::{Part, page, sizes};
pub(crate) use spans::Span;

/// A list, known by the hash of what it is of: people choose names, tags and metadata, of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct List([u8; 16]);

/// What those in a list have in common, beside kind and status.
#[derive(Clone, Copy)]
pub(crate) enum By<'a> {
    All,
    Owner(&'a [u8; 16]),
    Name(&'a str),
    Tag(&'a str),
    /// A value somewhere in the metadata.
    Value {
        path: &'a str,
        value: &'a str,
    },
    Parent(&'a [u8; 16]),
    /// A policy on the group: see [`rollcall_domain::groups::Policy::vouched`].
    Membership {
        of: &'a [u8; 16],
        vouched: bool,
    },
    /// A policy on the group that is vouched for, and an owner: how much of what is shared is one's own.
    OwnedMembership {
        of: &'a [u8; 16],
        owner: &'a [u8; 16],
    },
}

impl List {
    pub(crate) fn of(kind: Kind, status: Status, by: By<'_>) -> Self {
        let (letter, parts): (u8, [&[u8]; 2]) = match by {
            By::All => (b'a', [&[], &[]]),
            By::Owner(owner) => (b'o', [owner, &[]]),
            By::Name(name) => (b'n', [name.as_bytes(), &[]]),
            By::Tag(tag) => (b't', [tag.as_bytes(), &[]]),
            By::Value { path, value } => (b'v', [path.as_bytes(), value.as_bytes()]),
            By::Parent(parent) => (b'p', [parent, &[]]),
            By::Membership { of, vouched: true } => (b'm', [of, &[]]),
            By::Membership { of, vouched: false } => (b'u', [of, &[]]),
            By::OwnedMembership { of, owner } => (b'w', [of, owner]),
        };
        let status = match status {
            Status::Enabled => b'+',
            Status::Disabled => b'-',
        };
        let mut hash = Sha256::new();
        hash.update(kind.as_str());
        hash.update([status, letter]);
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut list = [0; 16];
        list.copy_from_slice(&hash.finalize()[..16]);
        Self(list)
    }
}

/// What is to be found in lists.
pub(crate) struct Entity<'a> {
    kind: Kind,
    id: &'a [u8; 16],
    created_at: Timestamp,
    status: Status,
    owner: Option<&'a [u8; 16]>,
    name: &'a str,
    tags: &'a [String],
    metadata: &'a Metadata,
    parent: Option<[u8; 16]>,
}

impl<'a> From<&'a User> for Entity<'a> {
    fn from(user: &'a User) -> Self {
        Self {
            kind: Kind::User,
            id: user.id.as_bytes(),
            created_at: user.created_at,
            status: user.status,
            owner: user.owner.as_ref().map(|owner| owner.as_bytes()),
            name: &user.name,
            tags: &user.tags,
            metadata: &user.metadata,
            parent: None,
        }
    }
}

impl<'a> From<&'a Thing> for Entity<'a> {
    fn from(thing: &'a Thing) -> Self {
        Self {
            kind: Kind::Thing,
            id: thing.id.as_bytes(),
            created_at: thing.created_at,
            status: thing.status,
            owner: Some(thing.owner.as_bytes()),
            name: &thing.name,
            tags: &thing.tags,
            metadata: &thing.metadata,
            parent: None,
        }
    }
}

impl<'a, I: Tables> From<&'a Group<I>> for Entity<'a> {
    fn from(group: &'a Group<I>) -> Self {
        Self {
            kind: I::KIND,
            id: group.id.as_bytes(),
            created_at: group.created_at,
            status: group.status,
            owner: Some(group.owner.as_bytes()),
            name: &group.name,
            tags: &[],
            metadata: &group.metadata,
            parent: group.parent().map(|parent| *parent.as_bytes()),
        }
    }
}

impl Entity<'_> {
    /// Those that it is in by what it is itself, in their order, each once.
    fn lists(&self) -> Vec<List> {
        let terms = metadata::terms(self.metadata);
        let values = terms.iter().map(|term| By::Value {
            path: &term.path,
            value: &term.value,
        });
        let mut lists: Vec<List> = [By::All, By::Name(self.name)]
            .into_iter()
            .chain(self.owner.map(By::Owner))
            .chain(self.parent.as_ref().map(By::Parent))
            .chain(self.tags.iter().map(|tag| By::Tag(tag)))
            .chain(values)
            .map(|by| List::of(self.kind, self.status, by))
            .collect();
        lists.sort_unstable();
        lists.dedup();
        lists
    }
}

pub(crate) const fn statuses(filter: StatusFilter) -> &'static [Status] {
    match filter {
        StatusFilter::Enabled => &[Status::Enabled],
        StatusFilter::Disabled => &[Status::Disabled],
        StatusFilter::All => &[Status::Enabled, Status::Disabled],
    }
}
