//! The access log: a queue of entries, and a thread that writes them.
//!
//! Workers add entries in batches, so a slow disk or terminal does not delay a request. Entries that do not fit in the queue, and
//! lines that cannot be written, are lost and counted. The thread is never joined, because it may block in write(2) indefinitely.
//!
//! | module | what it is for |
//! |---|---|
//! | `entry`, `line` | a request, and its line in each format |
//! | `queue` | entries between the workers and the thread |
//! | `file`, `writer` | the file, and writing whole lines to it |

mod entry;
mod file;
mod line;
mod queue;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

pub use entry::Entry;
pub use file::LogFile;
pub use line::{Format, write_line};
use queue::Queue;
use writer::LineWriter;

use crate::error::Result;
use crate::thread;

/// Approximate number of bytes per write(2).
const CHUNK: usize = 64 * 1024;

/// Processes a batch of entries on the thread of the log.
pub type Sink = Box<dyn FnMut(&[Entry]) + Send>;

/// A log and its thread. Dropping it closes the log without waiting for its queue.
pub struct AccessLog {
    queue: Arc<Queue>,
    file: Option<Arc<LogFile>>,
}

impl AccessLog {
    /// A log that passes its entries to `sink`.
    pub fn new(mut sink: Sink) -> io::Result<Self> {
        Self::start(None, move |queue, entries| {
            sink(entries);
            queue.settle(entries.len(), 0);
        })
    }

    /// A log that writes lines to `file`.
    pub fn lines(format: Format, file: LogFile) -> io::Result<Self> {
        let file = Arc::new(file);
        let mut writer = LineWriter::new(file.clone());
        Self::start(Some(file), move |queue, entries| {
            let mut text = String::new();
            let mut lines = 0;
            for (at, entry) in entries.iter().enumerate() {
                write_line(&mut text, entry, format);
                lines += 1;
                if text.len() >= CHUNK || at + 1 == entries.len() {
                    let lost = writer.write(text.as_bytes(), queue);
                    queue.settle(lines, lost);
                    text.clear();
                    lines = 0;
                }
            }
        })
    }

    fn start(file: Option<Arc<LogFile>>, mut write: impl FnMut(&Queue, &[Entry]) + Send + 'static) -> io::Result<Self> {
        let queue = Arc::new(Queue::new()?);
        thread::spawn("zerosend-log", {
            let queue = queue.clone();
            move || {
                while let Some(entries) = queue.take() {
                    if crate::stats::contain(|| write(&queue, &entries)).is_none() {
                        queue.lose_taken();
                    }
                }
            }
        })?;
        Ok(Self { queue, file })
    }

    /// Moves all `entries` into the queue.
    pub(super) fn add(&self, entries: &mut Vec<Entry>) {
        self.queue.add(entries);
    }

    /// Number of entries lost so far.
    pub fn lost(&self) -> u64 {
        self.queue.lost()
    }

    /// The path of the file; `None` for the standard output and for a sink.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref()?.path()
    }

    /// Opens the file at its path again, after it has been renamed. On an error the log continues with the open file. May block on
    /// disk I/O.
    pub fn reopen(&self) -> Result<()> {
        if let Some(file) = &self.file {
            file.reopen()?;
            self.queue.waker.wake();
        }
        Ok(())
    }

    /// Closes the log and waits until all entries are written, until `deadline`, or until nothing has been written for 2 s. The
    /// remaining entries are lost.
    pub fn finish(&self, deadline: Instant) {
        self.queue.finish(deadline);
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.queue.close(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};
    use std::time::Duration;

    use super::*;

    #[test]
    fn finish_waits_for_all_entries() {
        let written = Arc::new(Mutex::new(0));
        let log = AccessLog::new(Box::new({
            let written = written.clone();
            move |entries| *written.lock().expect("no panic") += entries.len()
        }))
        .expect("a thread");
        for _ in 0..100 {
            log.add(&mut vec![Entry::sample(); 10]);
        }
        log.finish(Instant::now() + Duration::from_secs(20));
        assert_eq!(*written.lock().expect("no panic"), 1000);
        log.add(&mut vec![Entry::sample()]);
        assert_eq!(log.lost(), 1, "a finished log accepts no entries");
    }

    #[test]
    fn the_entries_of_a_blocked_sink_are_lost_at_the_deadline() {
        let (release, blocked) = mpsc::channel::<()>();
        let log = AccessLog::new(Box::new(move |_| {
            let _ = blocked.recv();
        }))
        .expect("a thread");
        log.add(&mut vec![Entry::sample(); 10]);
        log.finish(Instant::now() + Duration::from_millis(50));
        assert_eq!(log.lost(), 10);
        drop(release);
    }

    #[test]
    fn a_panic_of_the_sink_loses_one_batch() {
        let log = AccessLog::new(Box::new(|entries| assert!(entries.len() > 3, "too few"))).expect("a thread");
        log.add(&mut vec![Entry::sample(); 3]);
        while log.lost() == 0 {
            std::thread::yield_now();
        }
        log.add(&mut vec![Entry::sample(); 5]);
        log.finish(Instant::now() + Duration::from_secs(20));
        assert_eq!(log.lost(), 3);
    }
}
