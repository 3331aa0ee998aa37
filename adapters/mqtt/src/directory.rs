//! Which sessions are whose: by client, and by thing, so that what is done to a thing does not take a look at
//! everybody.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rollcall_domain::identity::ThingId;

use crate::session::ClientKey;

/// Places in a worker's table of sessions.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    by_client: HashMap<Arc<ClientKey>, usize>,
    by_thing: HashMap<ThingId, Places>,
}

/// Most things have one session.
#[derive(Debug)]
enum Places {
    One(usize),
    Many(Vec<usize>),
}

impl Directory {
    pub(crate) fn get(&self, key: &ClientKey) -> Option<&usize> {
        self.by_client.get(key)
    }

    pub(crate) fn insert(&mut self, key: Arc<ClientKey>, slot: usize) {
        if let Some(thing) = key.thing {
            match self.by_thing.entry(thing) {
                Entry::Vacant(entry) => {
                    entry.insert(Places::One(slot));
                }
                Entry::Occupied(mut entry) => match entry.get_mut() {
                    Places::One(other) => {
                        let both = vec![*other, slot];
                        entry.insert(Places::Many(both));
                    }
                    Places::Many(places) => places.push(slot),
                },
            }
        }
        self.by_client.insert(key, slot);
    }

    pub(crate) fn remove(&mut self, key: &ClientKey) {
        let (Some(slot), Some(thing)) = (self.by_client.remove(key), key.thing) else {
            return;
        };
        let Entry::Occupied(mut entry) = self.by_thing.entry(thing) else {
            return;
        };
        match entry.get_mut() {
            Places::One(_) => {
                entry.remove();
            }
            Places::Many(places) => {
                places.retain(|it| *it != slot);
                if let [last] = places[..] {
                    entry.insert(Places::One(last));
                }
            }
        }
    }

    /// The sessions of a thing.
    pub(crate) fn of_thing(&self, thing: ThingId) -> &[usize] {
        match self.by_thing.get(&thing) {
            Some(Places::One(slot)) => std::slice::from_ref(slot),
            Some(Places::Many(places)) => places,
            None => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_found_with_all_its_sessions_and_no_others() {
        let (lamp, other) = (ThingId::generate(), ThingId::generate());
        let key = |thing, client_id: &str| {
            Arc::new(ClientKey {
                thing,
                client_id: client_id.into(),
            })
        };
        let mut directory = Directory::default();
        for (n, client_id) in ["a", "b", "c"].into_iter().enumerate() {
            directory.insert(key(Some(lamp), client_id), n);
        }
        directory.insert(key(Some(other), "a"), 3);
        directory.insert(key(None, "a"), 4);
        assert_eq!(directory.of_thing(lamp), [0, 1, 2]);
        assert_eq!(directory.of_thing(other), [3]);
        assert_eq!(directory.get(&key(None, "a")), Some(&4));
        for (client_id, left) in [("b", &[0, 2][..]), ("a", &[2]), ("c", &[])] {
            directory.remove(&key(Some(lamp), client_id));
            assert_eq!(directory.of_thing(lamp), left);
            assert_eq!(directory.get(&key(Some(lamp), client_id)), None);
        }
        directory.remove(&key(Some(lamp), "a"));
        directory.remove(&key(None, "a"));
        assert_eq!(directory.of_thing(other), [3]);
        assert!(directory.by_thing.len() == 1 && directory.by_client.len() == 1);
    }
}
