//! Starts native threads. Every thread of this crate and of the binding starts here.
//!
//! A thread may outlive the Node environment that started it. The library stays loaded: it is linked with `-z nodelete`, see
//! `crates/node/build.rs`.

use std::io;
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::error::{Code, Error};

/// Signals that stay unblocked: those that the kernel sends to the thread that caused them, because a blocked SIGSEGV ends the
/// process without its handler, see sigprocmask(2); and that of the profiler.
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

/// Starts a thread that blocks all asynchronous signals: the handlers of the process run on other threads and do not
/// interrupt system calls here. The kernel truncates `name` to 15 bytes.
pub fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    start(Builder::new().name(name.into()), body)
}

/// Like [`spawn`], with a stack size in bytes.
pub fn spawn_with_stack<T: Send + 'static>(
    name: &str,
    stack_size: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    start(Builder::new().name(name.into()).stack_size(stack_size), body)
}

/// The error for a failed [`spawn`]. `purpose` continues the sentence "cannot start a thread".
pub fn failed(purpose: &str, error: &io::Error) -> Error {
    Error::new(
        Code::Limit,
        format!("cannot start a thread {purpose}: {error}; raise the limit of processes (ulimit -u, pids.max)"),
    )
}

fn start<T: Send + 'static>(builder: Builder, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    let mut blocked = SigSet::all();
    for signal in UNBLOCKED {
        blocked.remove(signal);
    }
    // A new thread inherits the mask of its creator, see pthread_sigmask(3). Blocking before the start leaves no time in which
    // a signal can arrive.
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
            spawn("test", || SigSet::thread_get_mask().expect("a mask")).expect("started").join().expect("joined");
        assert!(mask.contains(Signal::SIGTERM) && mask.contains(Signal::SIGCHLD) && mask.contains(Signal::SIGUSR1));
        assert!(!mask.contains(Signal::SIGSEGV) && !mask.contains(Signal::SIGPROF));
        assert_eq!(SigSet::thread_get_mask().expect("a mask"), before);
    }
}
