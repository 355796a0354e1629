//! Bytes on their way from a mirror to its file.
//!
//! The pipe that holds them changes hands: the worker does not touch it until it comes back, so no call of the worker waits
//! for the lock of a pipe that a thread with a slow disk holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::mirror_file::{LinkFile, MirrorFile};
use super::worker::Message;
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::slab::Token;
use crate::io::pipe::Pipe;
use crate::output::FileWriter;
use zerosend_sys::SysResult;

/// Bytes of one `write(2)` at most.
const CHUNK: usize = 256 * 1024;

/// Where a mirror writes to.
#[derive(Clone)]
pub(super) enum AppendTarget {
    /// A file of all connections.
    Shared(Arc<MirrorFile>),
    /// A file of the connection.
    Own(Arc<LinkFile>),
    /// A file that was opened for the join.
    Sink(Arc<FileWriter>, Arc<AppendBacklog>),
}

/// Pieces that wait for one mirror at most when its disk hangs. Links that end leave theirs behind, and each has a pipe.
const MAX_PENDING: usize = 256;
/// A disk hangs when no piece was written for so long.
const STALL_TIME: Duration = Duration::from_secs(1);

/// The pieces that wait for a mirror.
pub(super) struct AppendBacklog {
    count: AtomicUsize,
    start: Instant,
    /// When one was last written, or the first one came: milliseconds after `start`.
    moved: AtomicU64,
}

impl Default for AppendBacklog {
    fn default() -> Self {
        Self { count: AtomicUsize::new(0), start: Instant::now(), moved: AtomicU64::new(0) }
    }
}

impl AppendBacklog {
    fn add(&self) {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            self.touch();
        }
    }

    fn remove(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.touch();
    }

    fn touch(&self) {
        self.moved.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn is_stalled(&self) -> bool {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        self.count.load(Ordering::Relaxed) >= MAX_PENDING && self.start.elapsed().saturating_sub(moved) > STALL_TIME
    }
}

impl AppendTarget {
    /// Whether a disk hangs and has so many pieces to write that no more should be sent to it.
    pub fn is_stalled(&self) -> bool {
        self.waiting().is_stalled()
    }

    fn waiting(&self) -> &Arc<AppendBacklog> {
        match self {
            AppendTarget::Shared(file) => file.waiting(),
            AppendTarget::Own(file) => file.waiting(),
            AppendTarget::Sink(_, waiting) => waiting,
        }
    }
}

/// Where the outcome of pieces is reported to, and how many bytes pieces had so far.
#[derive(Clone)]
pub(super) struct AppendReporter {
    pub mailbox: Arc<Mailbox<Message>>,
    pub issued: Arc<AtomicU64>,
}

/// What became of a piece.
pub(super) struct AppendResult {
    /// The pipe, unless there is something left in it.
    pub pipe: Option<Pipe>,
    pub written: usize,
    pub lost: usize,
    pub failure: Option<Errno>,
}

/// A full pipe, and the worker that gets it back.
pub(super) struct Append {
    pipe: Option<Pipe>,
    length: usize,
    written: usize,
    failure: Option<Errno>,
    waiting: Option<Arc<AppendBacklog>>,
    token: Token,
    index: usize,
    append_reporter: AppendReporter,
}

impl Append {
    /// `length` bytes in `pipe`, of the mirror `index` of the link `token`.
    pub fn new(pipe: Pipe, length: usize, token: Token, index: usize, append_reporter: &AppendReporter) -> Self {
        append_reporter.issued.fetch_add(length as u64, Ordering::Relaxed);
        // What is dropped without having been written is a failure: a panic of the pool.
        let failure = Some(Errno::EIO);
        Self {
            pipe: Some(pipe),
            length,
            written: 0,
            failure,
            waiting: None,
            token,
            index,
            append_reporter: append_reporter.clone(),
        }
    }

    /// Has it written on a thread that may wait for a disk.
    pub fn send_to(mut self, sink: &AppendTarget) {
        sink.waiting().add();
        self.waiting = Some(sink.waiting().clone());
        match sink {
            AppendTarget::Shared(file) => file.run(move |writer| self.write(writer)),
            AppendTarget::Own(file) => file.run(move |writer| self.write(writer)),
            AppendTarget::Sink(writer, _) => writer.run(move |writer| self.write(Ok(writer))),
        }
    }

    fn write(mut self, writer: SysResult<&FileWriter>) {
        self.failure = writer.and_then(|writer| self.copy(writer)).err();
    }

    fn copy(&mut self, writer: &FileWriter) -> SysResult<()> {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        let mut buffer = vec![0; self.length.min(CHUNK)];
        while self.written < self.length {
            let max = buffer.len().min(self.length - self.written);
            let mut filled = 0;
            // One read returns what is in one or several buffers of the pipe, and a piece is to be one write.
            while filled < max {
                match nix::unistd::read(pipe.read_end(), &mut buffer[filled..max]) {
                    Ok(0) | Err(Errno::EAGAIN) => return Err(Errno::EIO),
                    Ok(count) => filled += count,
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            let (count, result) = writer.write(&buffer[..filled]);
            self.written += count;
            result?;
        }
        Ok(())
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        if let Some(waiting) = &self.waiting {
            waiting.remove();
        }
        let result = AppendResult {
            pipe: self.pipe.take().filter(|_| self.failure.is_none()),
            written: self.written,
            lost: self.length - self.written,
            failure: self.failure,
        };
        let Self { token, index, .. } = *self;
        self.append_reporter.mailbox.send(Message::Appended { token, index, result });
    }
}
