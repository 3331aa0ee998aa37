//! How many connections an address has, and how fast it opens them.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bucket::{Bucket, Nanos, Rate};
use super::table::{Record, Table};

/// Whoever is given an address is given all of these: an IPv4 address, or an IPv6 network of 64 bits, from
/// which one host can take as many addresses as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin(u64);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        // Nobody speaks from an IPv6 address that begins with 32 ones: it would be multicast.
        let v4 = |bits: u32| Self(u64::from(u32::MAX) << 32 | u64::from(bits));
        match address.to_canonical() {
            IpAddr::V4(address) => v4(address.to_bits()),
            IpAddr::V6(Ipv6Addr::LOCALHOST) => v4(std::net::Ipv4Addr::LOCALHOST.to_bits()),
            IpAddr::V6(address) => Self((address.to_bits() >> 64) as u64),
        }
    }
}

/// What an address may have; 0 and `None` are no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    max_connections: u32,
    rate: Option<Rate>,
}

impl Allowance {
    pub(crate) fn new(max_connections: u32, per_second: u32, burst: Duration) -> Self {
        Self {
            max_connections,
            rate: Rate::new(per_second.into(), burst),
        }
    }
}

/// Why a connection is closed unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// The address has as many connections as it may.
    TooMany,
    /// It opens them too fast.
    TooFast,
}

pub(crate) struct Addresses {
    table: Table<Origin, Address>,
}

#[derive(Default)]
struct Address {
    connections: u32,
    bucket: Bucket,
}

impl Record for Address {
    fn is_held(&self) -> bool {
        self.connections > 0
    }

    fn is_blank(&self, now: Nanos) -> bool {
        self.bucket.is_full(now)
    }
}

/// The place of one connection of an address, until it is dropped.
pub(crate) struct Seat {
    addresses: Arc<Addresses>,
    origin: Origin,
}

impl Addresses {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            table: Table::new(start),
        }
    }

    pub(crate) fn purge(&self, now: Instant) {
        self.table.purge(self.table.nanos(now));
    }

    /// Takes a place for a connection, as soon as it is known where that comes from: what a PROXY header
    /// says counts, rather than the proxy. `None` if there is no limit to count for.
    ///
    /// # Errors
    /// The connection is to be closed unread.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        allowance: Allowance,
        now: Instant,
    ) -> Result<Option<Seat>, TurnedAway> {
        let Allowance {
            max_connections,
            rate,
        } = allowance;
        if max_connections == 0 && rate.is_none() {
            return Ok(None);
        }
        let origin = Origin::from(address);
        let now = self.table.nanos(now);
        let (entered, _) = self.table.change(origin, now, |address| {
            if max_connections > 0 && address.connections >= max_connections {
                return Err(TurnedAway::TooMany);
            }
            if let Some(rate) = rate {
                let took = address.bucket.take(rate, 1, now);
                took.map_err(|_| TurnedAway::TooFast)?;
            }
            address.connections += 1;
            Ok(())
        });
        entered.map(|()| {
            Some(Seat {
                addresses: Arc::clone(self),
                origin,
            })
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let table = &self.addresses.table;
        table.change(self.origin, table.nanos(Instant::now()), |address| {
            address.connections -= 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_of_64_bits_counts_as_one_address() {
        let same = |one, other| Origin::from(address(one)) == Origin::from(address(other));
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
        assert!(!same("::a00:1", "10.0.0.1"));
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let now = Instant::now();
        let addresses = Arc::new(Addresses::new(now));
        let allowance = Allowance::new(2, 0, Duration::from_secs(1));
        let enter = |text| addresses.enter(address(text), allowance, now);
        let one = enter("10.0.0.1").expect("a place");
        let _two = enter("10.0.0.1").expect("a place");
        assert_eq!(enter("10.0.0.1").err(), Some(TurnedAway::TooMany));
        assert!(enter("10.0.0.2").is_ok());
        drop(one);
        let _three = enter("10.0.0.1").expect("a place");
        assert_eq!(enter("10.0.0.1").err(), Some(TurnedAway::TooMany));
    }

    #[test]
    fn too_fast_is_too_fast_even_if_each_has_left_before_the_next() {
        let start = Instant::now();
        let addresses = Arc::new(Addresses::new(start));
        let allowance = Allowance::new(0, 2, Duration::from_secs(2));
        let enter = |after: f64| {
            let now = start + Duration::from_secs_f64(after);
            addresses.enter(address("10.0.0.1"), allowance, now).err()
        };
        for _ in 0..4 {
            assert_eq!(enter(0.0), None);
        }
        assert_eq!(enter(0.0), Some(TurnedAway::TooFast));
        assert_eq!(enter(0.6), None);
        assert_eq!(enter(0.6), None);
        assert_eq!(enter(0.6), Some(TurnedAway::TooFast));
        assert_eq!(enter(9.0), None);
    }

    #[test]
    fn without_a_limit_nothing_is_remembered() {
        let now = Instant::now();
        let addresses = Arc::new(Addresses::new(now));
        let allowance = Allowance::new(0, 0, Duration::from_secs(1));
        let seat = addresses.enter(address("10.0.0.1"), allowance, now);
        assert!(seat.expect("no limit").is_none());
        let origin = Origin::from(address("10.0.0.1"));
        assert!(addresses.table.look(&origin, |_| ()).is_none());
    }
}
