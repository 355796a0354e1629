//! What threads with an epoll instance are made of: readiness, messages from other threads, and timers.

pub mod mailbox;
pub mod slab;
pub mod thread_group;
pub mod timers;
pub mod waker;
