//! The queue of the access log, and the thread that empties it.
//!
//! Workers add entries in batches; the log's own thread writes them, so no slow disk or terminal holds up a request. When it
//! cannot keep up, or cannot write, lines are lost and counted. Nothing ever joins the thread: it may hang in a `write(2)`.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::file::{LineWriter, LogFile};
use super::{Entry, Format, write_line};
use crate::error::Result;
use crate::event_loop::waker::Waker;
use crate::stats::Counter;
use crate::thread;

/// Entries that may wait at once.
const MOST_WAITING: usize = 65_536;
/// Bytes of lines that are handed to the kernel at once, about.
const CHUNK: usize = 64 * 1024;

/// How long a log that is closed goes on without a line written.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where entries go to.
pub type Sink = Box<dyn FnMut(&[Entry]) + Send>;

#[derive(Default)]
struct State {
    waiting: Vec<Entry>,
    /// Entries that the thread has taken and not yet written.
    in_hand: usize,
    /// No more come, and after this moment those that are left are lost.
    closed: Option<Instant>,
    /// What was left is counted as lost.
    given_up: bool,
}

impl State {
    fn rest(&self) -> usize {
        self.in_hand + self.waiting.len()
    }
}

/// What workers, the log's thread and the thread that closes the log share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// There are entries, or no more will come.
    wake: Condvar,
    /// Entries of a closed log are written or lost.
    settled: Condvar,
    lost: Counter,
    asleep: AtomicBool,
    /// A line is written in part, and completed when the disk has room again.
    torn: AtomicBool,
    /// Ends the thread's wait for a pipe that is full.
    pub waker: Waker,
}

/// A log and the thread that writes it.
pub struct AccessLog {
    shared: Arc<Shared>,
    file: Option<Arc<LogFile>>,
}

impl AccessLog {
    /// A log into `sink`, which is called on the log's own thread.
    pub fn new(mut sink: Sink) -> io::Result<Self> {
        Self::start(None, move |shared, entries| {
            sink(entries);
            shared.settle(entries.len(), 0);
        })
    }

    /// A log of lines into `file`.
    pub fn lines(format: Format, file: LogFile) -> io::Result<Self> {
        let file = Arc::new(file);
        let mut writer = LineWriter::new(file.clone());
        Self::start(Some(file), move |shared, entries| {
            let mut text = String::new();
            let mut lines = 0;
            for (at, entry) in entries.iter().enumerate() {
                write_line(&mut text, entry, format);
                lines += 1;
                if text.len() >= CHUNK || at + 1 == entries.len() {
                    let lost = writer.write(text.as_bytes(), shared);
                    shared.settle(lines, lost);
                    text.clear();
                    lines = 0;
                }
            }
        })
    }

    fn start(
        file: Option<Arc<LogFile>>,
        mut write: impl FnMut(&Shared, &[Entry]) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            settled: Condvar::new(),
            lost: Counter::new(),
            asleep: AtomicBool::new(false),
            torn: AtomicBool::new(false),
            waker: Waker::new()?,
        });
        thread::spawn("zerosend-log", {
            let shared = shared.clone();
            move || {
                while let Some(entries) = shared.take() {
                    if crate::stats::contain(|| write(&shared, &entries)).is_none() {
                        shared.settle_rest();
                    }
                }
            }
        })?;
        Ok(Self { shared, file })
    }

    /// Takes over all of `entries`.
    pub(in crate::server) fn add(&self, entries: &mut Vec<Entry>) {
        let mut state = self.shared.lock();
        let room = if state.closed.is_some() { 0 } else { MOST_WAITING.saturating_sub(state.waiting.len()) };
        if entries.len() > room {
            self.shared.lost.add((entries.len() - room) as u64);
            entries.truncate(room);
        }
        state.waiting.append(entries);
        drop(state);
        if self.shared.asleep.load(Ordering::Relaxed) {
            self.shared.wake.notify_one();
        }
    }

    /// Entries that were lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost.get() + u64::from(self.shared.torn.load(Ordering::Relaxed))
    }

    /// The name of its file.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref()?.path()
    }

    /// Opens the file by its name again, after it was renamed. When that fails, the log stays with the file it has. May wait
    /// for a disk.
    pub fn reopen(&self) -> Result<()> {
        match &self.file {
            Some(file) => {
                file.reopen()?;
                self.shared.waker.wake();
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes no more, and waits until all is written, or until `end`, or until no line is written for [`PATIENCE`]: what is left then
    /// is lost.
    pub fn finish(&self, end: Instant) {
        let mut state = self.shared.lock();
        state.closed = Some(end);
        self.shared.wake.notify_one();
        self.shared.waker.wake();
        let mut progress = (Instant::now(), state.rest());
        while state.rest() > 0 {
            let now = Instant::now();
            if state.rest() < progress.1 {
                progress = (now, state.rest());
            }
            let left = end.min(progress.0 + PATIENCE).saturating_duration_since(now);
            if left.is_zero() {
                self.shared.lost.add(state.rest() as u64);
                state.waiting = Vec::new();
                state.given_up = true;
                state.closed = Some(now);
                drop(state);
                return self.shared.waker.wake();
            }
            state = self.shared.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed.get_or_insert_with(Instant::now);
        drop(state);
        self.shared.wake.notify_one();
        self.shared.waker.wake();
    }
}

impl Shared {
    /// Waits for entries; `None` when there will be no more.
    fn take(&self) -> Option<Vec<Entry>> {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.closed.is_some() {
                return None;
            }
            self.asleep.store(true, Ordering::Relaxed);
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            self.asleep.store(false, Ordering::Relaxed);
        }
        state.in_hand = state.waiting.len();
        Some(std::mem::take(&mut state.waiting))
    }

    /// `count` of the entries that were taken are written, but for `lost` lines.
    fn settle(&self, count: usize, lost: usize) {
        let mut state = self.lock();
        if !state.given_up {
            self.lost.add(lost as u64);
        }
        state.in_hand -= count.min(state.in_hand);
        if state.closed.is_some() {
            self.settled.notify_all();
        }
    }

    /// The entries that were taken and are not written are lost, by a panic.
    fn settle_rest(&self) {
        let rest = self.lock().in_hand;
        self.settle(rest, rest);
    }

    pub fn set_torn(&self, torn: bool) {
        self.torn.store(torn, Ordering::Relaxed);
    }

    /// When a write has to give up; `None` while the log is open.
    pub fn end(&self) -> Option<Instant> {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::UNIX_EPOCH;

    fn entry() -> Entry {
        Entry {
            time: UNIX_EPOCH,
            client: None,
            method: "GET".into(),
            target: "/".into(),
            host: None,
            is_http10: false,
            status: 200,
            bytes: 12,
            head_bytes: 100,
            duration: Duration::from_micros(1500),
            referer: None,
            user_agent: None,
            aborted: false,
        }
    }

    #[test]
    fn all_that_was_added_is_written_when_the_log_has_finished() {
        let written = Arc::new(Mutex::new(0));
        let log = AccessLog::new(Box::new({
            let written = written.clone();
            move |entries| *written.lock().expect("whole") += entries.len()
        }))
        .expect("a thread");
        for _ in 0..100 {
            log.add(&mut vec![entry(); 10]);
        }
        log.finish(Instant::now() + Duration::from_secs(20));
        assert_eq!(*written.lock().expect("whole"), 1000);
        log.add(&mut vec![entry()]);
        assert_eq!(log.lost(), 1, "the log takes no more");
    }

    #[test]
    fn a_sink_that_hangs_loses_what_it_has() {
        let (release, hangs) = mpsc::channel::<()>();
        let log = AccessLog::new(Box::new(move |_| {
            let _ = hangs.recv();
        }))
        .expect("a thread");
        log.add(&mut vec![entry(); 10]);
        log.finish(Instant::now() + Duration::from_millis(50));
        assert_eq!(log.lost(), 10);
        drop(release);
    }

    #[test]
    fn a_sink_that_panics_loses_one_batch() {
        let log = AccessLog::new(Box::new(|entries| assert!(entries.len() > 3, "too few"))).expect("a thread");
        log.add(&mut vec![entry(); 3]);
        while log.lost() == 0 {
            std::thread::yield_now();
        }
        log.add(&mut vec![entry(); 5]);
        log.finish(Instant::now() + Duration::from_secs(20));
        assert_eq!(log.lost(), 3);
    }
}
