//! The epoll loop of every thread that serves several descriptors: the reactor and the workers of servers and relays.
//!
//! | module | contents |
//! |---|---|
//! | `run` | `EventLoop`, the `Handler` trait, and the loop: events, messages, turns, deadlines; a panic ends one entry only |
//! | `scheduler` | the entries of a loop (connections, transfers), the queue of turns, deadlines |
//! | [`slab`] | storage with generation-checked tokens |
//! | [`mailbox`], [`waker`] | messages and wake-ups from other threads |
//! | [`thread_group`] | callbacks for the exit of a group of threads |

pub mod mailbox;
mod run;
mod scheduler;
pub mod slab;
#[cfg(test)]
mod tests;
pub mod thread_group;
pub mod waker;

pub(crate) use run::{EventLoop, Handler, LISTENER, contain, drain_deadline, run};
pub(crate) use scheduler::Scheduler;
