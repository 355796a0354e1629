//! A response while it is sent.

use std::time::Instant;

use super::send_rate::SendRate;
use crate::error::{Code, Error};
use crate::io::pool::Task;
use crate::server::access_log::Entry;
use crate::server::reply::Reply;
use crate::server::stats::WorkerStats;
use crate::transfer::{Disk, Part, Target, Transfer};
use zerosend_http::chunked::ChunkedSkipper;

/// The rest of a request body.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// This many bytes.
    Known(u64),
    Chunked(ChunkedSkipper),
}

pub(super) struct Response {
    pub transfer: Transfer,
    /// Length of the head in bytes.
    head_length: u64,
    pub rate: SendRate,
    /// The read-ahead on a pool thread, and when it began.
    pub prefetching: Option<(Instant, Task)>,
    /// The body of the request, which follows its head on the connection.
    pub body: Option<Body>,
    /// It has bytes of a file, so it counts for a method.
    pub has_file: bool,
    pub log: Option<Entry>,
}

impl Response {
    pub fn new(reply: Reply, body: Option<Body>, log: Option<Entry>, now: Instant) -> Self {
        let has_file = !reply.body.is_empty();
        let parts = std::iter::once(Part::Memory(reply.head)).chain(reply.body);
        Self {
            transfer: Transfer::new(parts, reply.method, Target::Socket, Disk::ResidentOnly),
            head_length: reply.head_length as u64,
            rate: SendRate::new(now),
            prefetching: None,
            body,
            has_file,
            log,
        }
    }

    /// Whether nothing has been sent, so that another response can replace this one.
    pub fn is_unsent(&self) -> bool {
        self.transfer.report().bytes == 0
    }

    /// Removes the read-ahead from the pool's queue. If it is already running, its result is ignored.
    pub fn cancel_prefetch(&self) {
        if let Some((_, task)) = &self.prefetching {
            task.cancel(aborted());
        }
    }

    /// Counts the bytes sent and adds the entry to `log`.
    pub fn record(&mut self, is_aborted: bool, stats: &WorkerStats, log: &mut Vec<Entry>) {
        let sent = self.transfer.report().bytes;
        let head_bytes = sent.min(self.head_length);
        stats.head_bytes.add(head_bytes);
        stats.bytes.add(sent - head_bytes);
        if is_aborted {
            stats.aborted.add(1);
        }
        if let Some(mut entry) = self.log.take() {
            entry.bytes = sent - head_bytes;
            entry.head_bytes = head_bytes;
            entry.aborted = is_aborted;
            entry.duration = self.rate.elapsed();
            log.push(entry);
        }
    }
}

/// The result of a pool task whose connection no longer needs it.
pub(super) fn aborted() -> Error {
    Error::new(Code::Aborted, "the connection has closed or timed out")
}
