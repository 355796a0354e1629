//! Single-flight loading: concurrent requests for a file wait for the first one to load it.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::key::Key;

/// The keys being loaded.
#[derive(Default)]
pub(super) struct SingleFlight {
    loading: Mutex<HashSet<Key>>,
    finished: Condvar,
}

/// The exclusive right to load a file, until it is dropped.
pub(super) struct Flight<'a> {
    flights: &'a SingleFlight,
    key: Key,
}

impl SingleFlight {
    /// Blocks until no other thread loads `key`. The caller must then check whether the file has been loaded.
    pub fn enter(&self, key: &[u8]) -> Flight<'_> {
        let mut loading = self.lock();
        while loading.contains(key) {
            loading = self.finished.wait(loading).unwrap_or_else(PoisonError::into_inner);
        }
        loading.insert(key.into());
        Flight { flights: self, key: key.into() }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
        self.flights.finished.notify_all();
    }
}
