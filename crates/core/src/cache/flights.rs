//! One load at a time for each file: who comes while another loads it waits for that one.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::lru::Key;

/// The loads under way.
#[derive(Default)]
pub(super) struct Flights {
    keys: Mutex<HashSet<Key>>,
    landed: Condvar,
}

/// The right to load a file. Others wait until it is dropped.
pub(super) struct Flight<'a> {
    flights: &'a Flights,
    key: Key,
}

impl Flights {
    /// Waits until nobody else loads it. Then look whether it is there now.
    pub fn enter(&self, key: &[u8]) -> Flight<'_> {
        let mut keys = self.lock();
        while keys.contains(key) {
            keys = self.landed.wait(keys).unwrap_or_else(PoisonError::into_inner);
        }
        keys.insert(key.into());
        Flight { flights: self, key: key.into() }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
        self.flights.landed.notify_all();
    }
}
