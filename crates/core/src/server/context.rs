//! The part of a worker that its connections use.

use std::sync::Arc;
use std::time::Instant;

use nix::sys::epoll::Epoll;

use super::access_log::Entry;
use super::date::DateLine;
use super::message::Message;
use super::shared::Shared;
use super::stats::WorkerStats;
use crate::event_loop::mailbox::Mailbox;

pub(super) struct Context {
    pub shared: Arc<Shared>,
    pub mailbox: Arc<Mailbox<Message>>,
    pub stats: Arc<WorkerStats>,
    pub epoll: Epoll,
    pub buffer: Vec<u8>,
    pub date: DateLine,
    pub log: Vec<Entry>,
    /// The time when this round of events began.
    pub now: Instant,
    pub draining: bool,
    /// A descriptor was wanted, and there was none.
    pub exhausted: bool,
}

impl std::ops::Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}
