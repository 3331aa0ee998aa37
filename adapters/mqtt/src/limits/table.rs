//! What is remembered of many, in bounded memory: however many strangers there are.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use super::bucket::Nanos;

const SHARDS: usize = 64;
/// Records of those who are not here, in each shard: 65,536 in all.
const IDLE: usize = 1024;

/// A record of somebody.
pub(crate) trait Record: Default {
    /// It is of somebody who is here, so it stays.
    fn is_held(&self) -> bool;

    /// It says no more than a new one.
    fn is_blank(&self, now: Nanos) -> bool;
}

/// Records by key. Those that are held stay: there are as many as connections. Of the others blank ones
/// are forgotten, and if that is not enough, every other one.
pub(crate) struct Table<K, V> {
    shards: Box<[Mutex<Shard<K, V>>]>,
    hasher: RandomState,
    start: Instant,
}

struct Shard<K, V> {
    records: HashMap<K, V>,
    /// How many records there may be before room is made.
    most: usize,
}

impl<K: Hash + Eq, V: Record> Table<K, V> {
    pub(crate) fn new(start: Instant) -> Self {
        let shard = || {
            Mutex::new(Shard {
                records: HashMap::new(),
                most: IDLE,
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            start,
        }
    }

    pub(crate) fn nanos(&self, at: Instant) -> Nanos {
        let nanos = at.saturating_duration_since(self.start).as_nanos();
        Nanos::try_from(nanos).unwrap_or(Nanos::MAX)
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, Shard<K, V>> {
        let place = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[place]
            .lock()
            .expect("invariant: no panic under the lock")
    }

    /// Looks at the record of `key`, if there is one.
    pub(crate) fn look<R>(&self, key: &K, look: impl FnOnce(&V) -> R) -> Option<R> {
        self.shard(key).records.get(key).map(look)
    }

    /// Changes the record of `key`, a blank one if there was none. Returns what `change` does, and by how
    /// much the number of records has changed.
    pub(crate) fn change<R>(
        &self,
        key: K,
        now: Nanos,
        change: impl FnOnce(&mut V) -> R,
    ) -> (R, isize) {
        let mut shard = self.shard(&key);
        let before = shard.records.len();
        if before >= shard.most {
            shard.make_room(now);
        }
        let mut record = match shard.records.entry(key) {
            Entry::Occupied(known) => known,
            Entry::Vacant(place) => place.insert_entry(V::default()),
        };
        let result = change(record.get_mut());
        if !record.get().is_held() && record.get().is_blank(now) {
            record.remove();
        }
        (result, shard.records.len() as isize - before as isize)
    }
}

impl<K: Hash + Eq, V: Record> Table<K, V> {
    /// Forgets records that say nothing any more. Returns how many.
    pub(crate) fn purge(&self, now: Nanos) -> usize {
        let mut purged = 0;
        for shard in &self.shards {
            let mut shard = shard.lock().expect("invariant: no panic under the lock");
            let before = shard.records.len();
            shard.forget_blank(now);
            purged += before - shard.records.len();
            shard.records.shrink_to(before);
            shard.most = shard.held() + IDLE;
        }
        purged
    }
}

impl<K: Hash + Eq, V: Record> Shard<K, V> {
    fn forget_blank(&mut self, now: Nanos) {
        self.records
            .retain(|_, record| record.is_held() || !record.is_blank(now));
    }

    fn held(&self) -> usize {
        self.records.values().filter(|it| it.is_held()).count()
    }

    fn make_room(&mut self, now: Nanos) {
        self.forget_blank(now);
        if self.records.len() - self.held() > IDLE / 2 {
            let mut stays = false;
            self.records.retain(|_, record| {
                stays = !stays;
                stays || record.is_held()
            });
        }
        self.most = self.records.len() + IDLE / 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Note {
        held: bool,
        blank_at: Nanos,
    }

    impl Record for Note {
        fn is_held(&self) -> bool {
            self.held
        }

        fn is_blank(&self, now: Nanos) -> bool {
            self.blank_at <= now
        }
    }

    #[test]
    fn strangers_without_number_take_bounded_room_and_nobody_who_is_here_is_forgotten() {
        let table = Table::<u64, Note>::new(Instant::now());
        let mut records = 0;
        for key in 0..1_000 {
            records += table.change(key, 0, |note| note.held = true).1;
        }
        for key in 1_000..500_000 {
            records += table.change(key, key, |note| note.blank_at = Nanos::MAX).1;
            if key % 10_000 == 0 {
                assert_eq!(table.purge(key), 0);
            }
        }
        let kept: usize = table
            .shards
            .iter()
            .map(|it| it.lock().expect("sound").records.len())
            .sum();
        assert_eq!(kept as isize, records);
        assert!(kept <= 1_000 + SHARDS * IDLE, "{kept}");
        assert!((0..1_000).all(|key| table.look(&key, |note| note.held) == Some(true)));
    }

    #[test]
    fn what_has_become_blank_is_purged() {
        let table = Table::<u64, Note>::new(Instant::now());
        for key in 0..100 {
            table.change(key, 0, |note| note.blank_at = key);
        }
        table.change(1000, 0, |note| note.held = true);
        // The first was blank from the beginning.
        assert_eq!(table.purge(49), 49);
        assert_eq!(table.purge(49), 0);
        assert_eq!(table.purge(Nanos::MAX), 50);
        assert_eq!(table.look(&1000, |note| note.held), Some(true));
    }

    #[test]
    fn a_record_that_says_nothing_is_not_kept() {
        let table = Table::<u64, Note>::new(Instant::now());
        assert_eq!(table.change(1, 5, |note| note.blank_at = 5).1, 0);
        assert_eq!(table.change(1, 5, |note| note.blank_at = 6).1, 1);
        assert_eq!(table.change(1, 6, |_| ()).1, -1);
        assert!(table.look(&1, |_| ()).is_none());
    }
}
