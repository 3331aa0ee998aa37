//! Questions to the things service, asked for workers that must not wait: the answer comes as mail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::Counter;
use rollcall_domain::access::{
    Access, Action, Authenticated, AuthorityError, Credentials, Permit, Proof,
};
use rollcall_domain::identity::ChannelId;

use crate::inbox::{Inbox, Mail};
use crate::message::Message;
use crate::revocation::Doubt;

pub(crate) struct Gate {
    pub(crate) access: Arc<Access>,
    runtime: tokio::runtime::Handle,
    max_questions: usize,
    open: AtomicUsize,
    asked: Counter,
}

pub(crate) enum Question {
    Identify(Credentials),
    Authorize {
        thing: Authenticated,
        proof: Proof,
        channel: ChannelId,
        action: Action,
    },
}

/// Who asked, and so what the answer is for.
pub(crate) enum Asker {
    /// A packet of this connection waits.
    Connection { token: usize, generation: u32 },
    /// A will whose connection is gone.
    Will(Message),
    /// Something that may have been revoked.
    Doubt(Doubt),
}

pub(crate) struct Answer {
    pub(crate) asker: Asker,
    pub(crate) verdict: Answered,
}

#[derive(Debug)]
pub(crate) enum Answered {
    Identity(Result<Authenticated, AuthorityError>),
    Grant(ChannelId, Action, Result<Permit, AuthorityError>),
}

/// Too many questions are open.
#[derive(Debug)]
pub(crate) struct Busy;

impl Gate {
    pub(crate) fn new(
        access: Arc<Access>,
        runtime: tokio::runtime::Handle,
        max_questions: usize,
    ) -> Self {
        Self {
            access,
            runtime,
            max_questions,
            open: AtomicUsize::new(0),
            asked: crate::metrics::count(
                "questions",
                "Questions to the things service: who is this, may it",
            ),
        }
    }

    /// Asks; the answer goes to `inbox`.
    pub(crate) fn ask(
        self: &Arc<Self>,
        question: Question,
        asker: Asker,
        inbox: &Arc<Inbox>,
    ) -> Result<(), Busy> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max_questions {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Busy);
        }
        self.asked.increment(1);
        let (gate, inbox) = (Arc::clone(self), Arc::clone(inbox));
        self.runtime.spawn(async move {
            let verdict = match question {
                Question::Identify(credentials) => {
                    Answered::Identity(gate.access.identify(&credentials).await)
                }
                Question::Authorize {
                    thing,
                    proof,
                    channel,
                    action,
                } => {
                    let grant = gate.access.ask(thing, &proof, channel, action).await;
                    Answered::Grant(channel, action, grant)
                }
            };
            gate.open.fetch_sub(1, Ordering::Relaxed);
            inbox.post(Mail::Answer(Answer { asker, verdict }));
        });
        Ok(())
    }
}
