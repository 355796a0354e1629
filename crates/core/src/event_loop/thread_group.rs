//! A group of threads, with callbacks for the moment when the last of them has exited.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::thread;

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
struct ThreadGuard(ThreadGroup);

impl ThreadGroup {
    /// Starts a thread that belongs to the group.
    pub fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
        self.lock().threads += 1;
        let guard = ThreadGuard(self.clone());
        let spawned = thread::spawn(name, move || {
            let _guard = guard;
            body();
        });
        let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN));
        spawned.map(drop).map_err(|error| Error::system("clone", errno(error)))
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
