//! Appending to the file of a mirror, on a thread that may wait for a disk.
//!
//! The pipe with the bytes moves to that thread and comes back with the result. The worker does not touch it meanwhile: a call
//! on it would wait for the kernel's lock of the pipe, which the other thread may hold while its disk is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

use super::append_backlog::AppendBacklog;
use super::link_file::LinkFile;
use super::message::{AppendResult, Message};
use super::mirror_file::MirrorFile;
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::slab::Token;
use crate::io::pipe::Pipe;
use crate::output::FileWriter;
use zerosend_sys::SysResult;

/// Maximum number of bytes of one `write(2)`.
const CHUNK: usize = 256 * 1024;

/// The file that a mirror appends to.
#[derive(Clone)]
pub(super) enum AppendTarget {
    /// One file for all connections.
    Shared(Arc<MirrorFile>),
    /// A file for one connection.
    PerLink(Arc<LinkFile>),
    /// A file that was opened for a session.
    Session(Arc<FileWriter>, Arc<AppendBacklog>),
}

impl AppendTarget {
    /// Whether the disk hangs and the queue is full, so that nothing more may be appended.
    pub fn is_stalled(&self) -> bool {
        self.backlog().is_stalled()
    }

    fn backlog(&self) -> &Arc<AppendBacklog> {
        match self {
            AppendTarget::Shared(file) => file.backlog(),
            AppendTarget::PerLink(file) => file.backlog(),
            AppendTarget::Session(_, backlog) => backlog,
        }
    }
}

/// Where a worker receives the results of its appends, and the total number of bytes it has queued.
#[derive(Clone)]
pub(super) struct AppendReporter {
    pub mailbox: Arc<Mailbox<Message>>,
    pub queued_bytes: Arc<AtomicU64>,
}

/// Bytes to append. Dropping it sends the [`AppendResult`] to the worker.
pub(super) struct Append {
    pipe: Option<Pipe>,
    length: usize,
    written: usize,
    failure: Option<Errno>,
    backlog: Option<Arc<AppendBacklog>>,
    token: Token,
    mirror: usize,
    reporter: AppendReporter,
}

impl Append {
    /// The `length` bytes in `pipe`, of the mirror with index `mirror` of the link `token`.
    pub fn new(pipe: Pipe, length: usize, token: Token, mirror: usize, reporter: &AppendReporter) -> Self {
        reporter.queued_bytes.fetch_add(length as u64, Ordering::Relaxed);
        Self {
            pipe: Some(pipe),
            length,
            written: 0,
            // Reported if it is dropped before `write`, after a panic in the thread pool.
            failure: Some(Errno::EIO),
            backlog: None,
            token,
            mirror,
            reporter: reporter.clone(),
        }
    }

    /// Queues it for the thread that appends to `target`.
    pub fn submit(mut self, target: &AppendTarget) {
        target.backlog().add();
        self.backlog = Some(target.backlog().clone());
        match target {
            AppendTarget::Shared(file) => file.run(move |writer| self.write(writer)),
            AppendTarget::PerLink(file) => file.run(move |writer| self.write(writer)),
            AppendTarget::Session(writer, _) => writer.run(move |writer| self.write(Ok(writer))),
        }
    }

    fn write(mut self, writer: SysResult<&FileWriter>) {
        self.failure = writer.and_then(|writer| self.copy(writer)).err();
    }

    fn copy(&mut self, writer: &FileWriter) -> SysResult<()> {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        let mut chunk = vec![0; self.length.min(CHUNK)];
        while self.written < self.length {
            let max = chunk.len().min(self.length - self.written);
            let mut filled = 0;
            // A read may return the bytes of some of the pipe's buffers only; all bytes of an append go into one write.
            while filled < max {
                match nix::unistd::read(pipe.read_end(), &mut chunk[filled..max]) {
                    Ok(0) | Err(Errno::EAGAIN) => return Err(Errno::EIO),
                    Ok(count) => filled += count,
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            let (count, result) = writer.write(&chunk[..filled]);
            self.written += count;
            result?;
        }
        Ok(())
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        if let Some(backlog) = &self.backlog {
            backlog.remove();
        }
        let result = AppendResult {
            pipe: self.pipe.take().filter(|_| self.failure.is_none()),
            written: self.written,
            lost: self.length - self.written,
            failure: self.failure,
        };
        let Self { token, mirror, .. } = *self;
        self.reporter.mailbox.send(Message::Appended { token, mirror, result });
    }
}
