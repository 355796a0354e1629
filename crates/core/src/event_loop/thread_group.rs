//! The end of something that runs on several threads, and who wants to hear of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Called when the last thread has ended.
type Listener = Box<dyn FnOnce() + Send>;

/// Counts threads. Clones share the count.
#[derive(Clone, Default)]
pub struct Ending(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    threads: usize,
    listeners: Vec<Listener>,
}

/// A thread that is counted until this is dropped.
pub struct Running(Ending);

impl Ending {
    /// Counts a thread in, which keeps what it is given.
    pub fn enter(&self) -> Running {
        self.lock().threads += 1;
        Running(self.clone())
    }

    /// Calls `ended` when all threads have ended, on the last of them or at once.
    pub fn when_ended(&self, ended: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        if state.threads > 0 {
            state.listeners.push(Box::new(ended));
        } else {
            drop(state);
            ended();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.threads -= 1;
        if state.threads == 0 {
            let listeners = std::mem::take(&mut state.listeners);
            drop(state);
            for ended in listeners {
                ended();
            }
        }
    }
}
