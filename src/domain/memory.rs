//! The ports kept in memory, for tests: the same contract suites run on them as on the databases.

mod bootstrap;
mod groups;
mod things;
mod users;

use std::sync::{Arc, Mutex, MutexGuard};

use crate::event::Event;
use crate::listing::{Listing, Page};

pub use bootstrap::Configs;
pub use groups::Groups;
pub use things::Things;
pub use users::Users;

/// What the services announced, in order.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    pub fn record(&self, events: impl IntoIterator<Item = Event>) {
        lock(&self.0).extend(events);
    }

    #[must_use]
    pub fn all(&self) -> Vec<Event> {
        lock(&self.0).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("invariant: no panic under the lock")
}

fn page_of<T>(mut items: Vec<T>, page: Page) -> Listing<T> {
    let total = items.len();
    let offset = usize::try_from(page.offset).map_or(total, |offset| offset.min(total));
    items.drain(..offset);
    items.truncate(usize::try_from(page.limit).unwrap_or(usize::MAX));
    Listing {
        items,
        total: total as u64,
    }
}
