//! Who a session belongs to, and what that lets it do.

use rollcall_domain::access::{Action, Authenticated, AuthorityError, Permit, Proof, Verdict};
use rollcall_domain::identity::{ChannelId, ThingId};
use rollcall_domain::topic::{TopicFilter, TopicName};

use crate::config::AccessMode;
use crate::connection::Connection;
use crate::gate::{Answered, Question};
use crate::sys;
use crate::worker::Worker;

#[derive(Clone, Debug)]
pub(crate) enum Principal {
    /// A thing, and what proved it: grants are asked for with it.
    Thing { thing: Authenticated, proof: Proof },
    /// Whoever came by a listener that is open to everybody.
    Anyone(Open),
    /// Of a session that an earlier run left: nobody has proved yet to be this.
    Absent(Option<ThingId>),
}

/// Proof that a listener is open to everybody. Only its settings make one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open(());

/// Proof that a thing may read `$SYS` topics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader(());

/// Proof that something may be done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Grant {
    Permit(Permit),
    Open(Open),
    Sys(Reader),
}

/// Something that one may or may not do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed<'a> {
    Publish(TopicName<'a>),
    Subscribe(TopicFilter<'a>),
}

/// What is known about a deed.
pub(crate) enum Finding {
    Granted(Grant),
    Denied,
    /// The things service could not say.
    Unavailable,
    /// The things service has to be asked.
    Unknown(Question),
}

impl Open {
    pub(crate) fn by(mode: AccessMode) -> Option<Self> {
        (mode == AccessMode::Open).then_some(Self(()))
    }
}

impl Principal {
    /// Whether a certificate did for the key.
    pub(crate) const fn is_certified(&self) -> bool {
        matches!(
            self,
            Self::Thing {
                proof: Proof::Certificate,
                ..
            }
        )
    }

    pub(crate) const fn thing(&self) -> Option<ThingId> {
        match self {
            Self::Thing { thing, .. } => Some(thing.thing()),
            Self::Anyone(_) => None,
            Self::Absent(thing) => *thing,
        }
    }
}

impl<'a> Deed<'a> {
    const fn action(self) -> Action {
        match self {
            Self::Publish(_) => Action::Write,
            Self::Subscribe(_) => Action::Read,
        }
    }

    /// What `$SYS` topics say is true: nobody else says anything there.
    fn is_to_publish_sys(self) -> bool {
        matches!(self, Self::Publish(topic) if sys::is_meant(topic.as_str()))
    }

    fn channel(self) -> Option<ChannelId> {
        match self {
            Self::Publish(topic) => topic.channel(),
            Self::Subscribe(filter) => filter.channel(),
        }
    }
}

impl Worker {
    /// Whether `principal` may do `deed`, as far as memory tells.
    pub(crate) fn recall(&self, principal: &Principal, deed: Deed<'_>) -> Finding {
        let (thing, proof) = match principal {
            Principal::Thing { thing, proof } => (*thing, proof),
            Principal::Anyone(_) if deed.is_to_publish_sys() => return Finding::Denied,
            Principal::Anyone(open) => return Finding::Granted(Grant::Open(*open)),
            Principal::Absent(_) => return Finding::Denied,
        };
        let Some(channel) = deed.channel() else {
            return match deed {
                Deed::Subscribe(filter)
                    if sys::is_meant(filter.as_str())
                        && self.shared.board.may_read(thing.thing()) =>
                {
                    Finding::Granted(Grant::Sys(Reader(())))
                }
                _ => Finding::Denied,
            };
        };
        let (access, action) = (&self.shared.gate.access, deed.action());
        match access.authorize(thing, channel, action, self.now) {
            Verdict::Granted(permit) => Finding::Granted(Grant::Permit(permit)),
            Verdict::Denied => Finding::Denied,
            Verdict::Unknown => Finding::Unknown(Question::Authorize {
                thing,
                proof: proof.clone(),
                channel,
                action,
            }),
        }
    }

    /// Like [`Worker::recall`], with the answers that came for the packet at the front of the input.
    pub(crate) fn look_up(&self, token: usize, principal: &Principal, deed: Deed<'_>) -> Finding {
        let found = self.recall(principal, deed);
        let Finding::Unknown(Question::Authorize {
            channel, action, ..
        }) = found
        else {
            return found;
        };
        match self.answer(&self.connections[token], channel, action) {
            Some(Ok(permit)) => Finding::Granted(Grant::Permit(*permit)),
            Some(Err(AuthorityError::Denied)) => Finding::Denied,
            Some(Err(AuthorityError::Unavailable(_))) => Finding::Unavailable,
            None => found,
        }
    }

    /// If something was revoked meanwhile, perhaps this, there is no answer: it is to be asked again.
    fn answer<'a>(
        &self,
        connection: &'a Connection,
        channel: ChannelId,
        action: Action,
    ) -> Option<&'a Result<Permit, AuthorityError>> {
        let access = &self.shared.gate.access;
        connection.answers.iter().find_map(|answer| match answer {
            Answered::Grant(_, _, Ok(permit)) if !access.is_current(permit) => None,
            Answered::Grant(of, what, verdict) if *of == channel && *what == action => {
                Some(verdict)
            }
            _ => None,
        })
    }

    /// Whether `grant` still holds.
    #[inline]
    pub(crate) fn holds(&self, grant: &Grant) -> bool {
        match grant {
            Grant::Permit(permit) => self.shared.gate.access.holds(permit, self.now),
            Grant::Open(_) | Grant::Sys(_) => true,
        }
    }
}
