//! Parts of a thread that blocks in `epoll_wait`: messages from other threads, tokens, deadlines.

pub mod mailbox;
pub mod slab;
pub mod thread_group;
pub mod timers;
pub mod waker;
