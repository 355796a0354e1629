//! The part of a worker that its connections use.

use std::sync::Arc;

use super::access_log::Entry;
use super::date::DateLine;
use super::message::Message;
use super::shared::Shared;
use super::stats::WorkerStats;
use crate::event_loop::EventLoop;

/// Size of [`Context::buffer`] in bytes: the maximum that one recv(2) reads.
const BUFFER: usize = 64 * 1024;

pub(super) struct Context {
    pub shared: Arc<Shared>,
    pub stats: Arc<WorkerStats>,
    pub event_loop: EventLoop<Message>,
    /// The receive buffer of all connections.
    pub buffer: Vec<u8>,
    pub date: DateLine,
    /// Entries for the access log, added to its queue after each round of events.
    pub log: Vec<Entry>,
    /// An open(2) has failed for lack of descriptors or memory in this round.
    pub exhausted: bool,
}

impl Context {
    /// The context of the worker with this index.
    pub fn new(shared: Arc<Shared>, worker: usize, event_loop: EventLoop<Message>) -> Self {
        let stats = shared.stats[worker].clone();
        Self {
            shared,
            stats,
            event_loop,
            buffer: Vec::new(),
            date: DateLine::default(),
            log: Vec::new(),
            exhausted: false,
        }
    }

    /// Takes the receive buffer; put it back after use. It is allocated on first use, and again after a panic has dropped it.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.len() < BUFFER {
            buffer.resize(BUFFER, 0);
        }
        buffer
    }
}
