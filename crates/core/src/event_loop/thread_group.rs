//! A group of threads, with callbacks for the moment when the last of them has exited.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Callback = Box<dyn FnOnce() + Send>;

/// Counts running threads. Clones share the count.
#[derive(Clone, Default)]
pub struct ThreadGroup(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    threads: usize,
    callbacks: Vec<Callback>,
}

/// Counts one thread as running until it is dropped.
pub struct ThreadGuard(ThreadGroup);

impl ThreadGroup {
    /// Counts one more thread. The thread owns the guard and drops it last.
    pub fn guard(&self) -> ThreadGuard {
        self.lock().threads += 1;
        ThreadGuard(self.clone())
    }

    /// Calls `callback` on the last thread when it exits; at once, on the calling thread, when none runs.
    pub fn on_exit(&self, callback: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        if state.threads > 0 {
            state.callbacks.push(Box::new(callback));
        } else {
            drop(state);
            callback();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.threads -= 1;
        if state.threads == 0 {
            let callbacks = std::mem::take(&mut state.callbacks);
            drop(state);
            for callback in callbacks {
                callback();
            }
        }
    }
}
