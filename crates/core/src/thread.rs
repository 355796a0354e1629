//! Starting native threads. Every thread of this crate and of the binding starts here.

use std::io;
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::error::{Code, Error};

/// Signals that the kernel sends to the thread that caused them, and the profiler's, stay unblocked: a blocked SIGSEGV
/// ends the process without its handler (sigprocmask(2)).
const UNBLOCKED: [Signal; 8] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGSYS,
    Signal::SIGPROF,
];

/// Starts a thread that blocks all asynchronous signals, so that the host's handlers run on its own threads and system
/// calls here are not interrupted by them. `name` is cut to 15 bytes by the kernel.
pub fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    start(Builder::new().name(name.into()), body)
}

/// Like [`spawn`], with a stack of `stack` bytes.
pub fn spawn_with_stack<T: Send + 'static>(
    name: &str,
    stack: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    start(Builder::new().name(name.into()).stack_size(stack), body)
}

/// The error of a thread that could not be started for `purpose`.
pub fn failed(purpose: &str, error: &io::Error) -> Error {
    Error::new(
        Code::Limit,
        format!("no thread could be started {purpose}: {error}; raise the limit of processes (ulimit -u, pids.max)"),
    )
}

fn start<T: Send + 'static>(builder: Builder, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    let mut blocked = SigSet::all();
    for signal in UNBLOCKED {
        blocked.remove(signal);
    }
    // A new thread inherits the mask of the one that starts it, pthread_sigmask(3): blocked before, so that no signal can
    // arrive in between.
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok();
    let started = builder.spawn(body);
    if let Some(before) = before {
        let _ = before.thread_set_mask();
    }
    started
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_signals_in_the_new_thread_only() {
        let before = SigSet::thread_get_mask().expect("a mask");
        let mask =
            spawn("test", || SigSet::thread_get_mask().expect("a mask")).expect("started").join().expect("ended");
        assert!(mask.contains(Signal::SIGTERM) && mask.contains(Signal::SIGCHLD) && mask.contains(Signal::SIGUSR1));
        assert!(!mask.contains(Signal::SIGSEGV) && !mask.contains(Signal::SIGPROF));
        assert_eq!(SigSet::thread_get_mask().expect("a mask"), before);
    }
}
