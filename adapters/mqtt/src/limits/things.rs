//! What a thing may do, over all its sessions and all workers: connections, and what it publishes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rollcall_domain::identity::ThingId;

use super::bucket::{Nanos, Rate, SharedBucket};
use super::table::{Record, Table};

#[derive(Clone, Copy, Debug)]
pub(crate) struct ThingAllowance {
    /// 0 is no limit.
    pub(crate) max_connections: u32,
    pub(crate) messages: Option<Rate>,
    pub(crate) bytes: Option<Rate>,
}

pub(crate) struct Things {
    allowance: ThingAllowance,
    table: Table<ThingId, Account>,
}

#[derive(Default)]
struct Account {
    connections: u32,
    usage: Arc<Usage>,
}

#[derive(Debug, Default)]
struct Usage {
    messages: SharedBucket,
    bytes: SharedBucket,
}

impl Record for Account {
    fn is_held(&self) -> bool {
        self.connections > 0
    }

    fn is_blank(&self, now: Nanos) -> bool {
        self.usage.messages.is_full(now) && self.usage.bytes.is_full(now)
    }
}

/// The thing has as many connections as it may.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// A connection of a thing, counted until this is dropped.
pub(crate) struct Member {
    things: Arc<Things>,
    thing: ThingId,
    usage: Arc<Usage>,
}

impl Things {
    pub(crate) fn new(allowance: ThingAllowance, start: Instant) -> Self {
        Self {
            allowance,
            table: Table::new(start),
        }
    }

    pub(crate) fn purge(&self, now: Instant) {
        self.table.purge(self.table.nanos(now));
    }

    /// Counts a connection; one that takes another over is not one more. `None` if nothing is limited.
    ///
    /// # Errors
    /// The connection is to be refused.
    pub(crate) fn enter(
        self: &Arc<Self>,
        thing: ThingId,
        takes_over: bool,
        now: Instant,
    ) -> Result<Option<Box<Member>>, TooMany> {
        let ThingAllowance {
            max_connections,
            messages,
            bytes,
        } = self.allowance;
        if max_connections == 0 && messages.is_none() && bytes.is_none() {
            return Ok(None);
        }
        let now = self.table.nanos(now);
        let (entered, _) = self.table.change(thing, now, |account| {
            if max_connections > 0 && account.connections >= max_connections && !takes_over {
                return Err(TooMany);
            }
            account.connections += 1;
            Ok(Arc::clone(&account.usage))
        });
        entered.map(|usage| {
            Some(Box::new(Member {
                things: Arc::clone(self),
                thing,
                usage,
            }))
        })
    }
}

impl Member {
    /// Takes a message of so many bytes out of what the thing may publish.
    ///
    /// # Errors
    /// How long the message has to wait.
    #[inline]
    pub(crate) fn publish(&self, bytes: usize, now: Instant) -> Result<(), Duration> {
        let ThingAllowance {
            messages: message_rate,
            bytes: byte_rate,
            ..
        } = self.things.allowance;
        if message_rate.is_none() && byte_rate.is_none() {
            return Ok(());
        }
        let now = self.things.table.nanos(now);
        if let Some(rate) = byte_rate
            && let Some(wait) = self.usage.bytes.wait(rate, now)
        {
            return Err(wait);
        }
        if let Some(rate) = message_rate {
            self.usage.messages.take(rate, 1, now)?;
        }
        if let Some(rate) = byte_rate {
            // Another worker may have been faster: this message is overdrawn then.
            self.usage.bytes.overdraw(rate, bytes as u64, now);
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let table = &self.things.table;
        table.change(self.thing, table.nanos(Instant::now()), |account| {
            account.connections -= 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn things(max_connections: u32, messages: u64, bytes: u64, start: Instant) -> Arc<Things> {
        let burst = Duration::from_secs(1);
        let allowance = ThingAllowance {
            max_connections,
            messages: Rate::new(messages, burst),
            bytes: Rate::new(bytes, burst),
        };
        Arc::new(Things::new(allowance, start))
    }

    #[test]
    fn a_take_over_is_not_one_more() {
        let now = Instant::now();
        let things = things(2, 0, 0, now);
        let thing = ThingId::generate();
        let one = things.enter(thing, false, now).expect("a place");
        let _two = things.enter(thing, false, now).expect("a place");
        assert_eq!(things.enter(thing, false, now).err(), Some(TooMany));
        assert!(things.enter(ThingId::generate(), false, now).is_ok());
        let heir = things.enter(thing, true, now).expect("a place");
        drop(one);
        assert_eq!(things.enter(thing, false, now).err(), Some(TooMany));
        drop(heir);
        assert!(things.enter(thing, false, now).is_ok());
    }

    #[test]
    fn sessions_share_what_their_thing_may_publish_and_coming_back_gives_no_more() {
        let now = Instant::now();
        let things = things(0, 10, 0, now);
        let thing = ThingId::generate();
        let enter = || {
            let member = things.enter(thing, false, now).expect("no limit");
            member.expect("counted")
        };
        let (one, two) = (enter(), enter());
        for _ in 0..5 {
            assert_eq!(one.publish(1000, now), Ok(()));
            assert_eq!(two.publish(1000, now), Ok(()));
        }
        assert!(one.publish(1, now).is_err() && two.publish(1, now).is_err());
        drop((one, two));
        let again = enter();
        assert!(again.publish(1, now).is_err());
        assert_eq!(again.publish(1, now + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn bytes_count_as_messages_do() {
        let now = Instant::now();
        let things = things(0, 1_000, 100, now);
        let member = things.enter(ThingId::generate(), false, now);
        let member = member.expect("no limit").expect("counted");
        assert_eq!(member.publish(300, now), Ok(()), "overdrawn");
        let wait = member.publish(1, now).expect_err("to be paid for");
        assert_eq!(wait.as_secs(), 2);
        assert_eq!(member.publish(1, now + wait), Ok(()));
    }
}
