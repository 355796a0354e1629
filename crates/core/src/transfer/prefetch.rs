//! Brings the next bytes of a cold file closer, on a thread of the pool that may wait for the disk.
//!
//! Usually into the page cache, from where every method takes them. Where the kernel does not say what is resident (FUSE
//! and some network file systems), or where pages were gone again when their turn came, the bytes themselves are read:
//! to send from the page cache could block the thread that serves others.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::mpsc::channel;

use nix::errno::Errno;

use super::SharedFile;
use super::resident::{is_in_memory, is_on_overlay};
use crate::error::{Error, Result};
use crate::io::pool::{Lane, Pool, Task, Volume};

/// How far one prefetch reads ahead, in bytes: large enough for a disk's full rate.
const WINDOW: u64 = 4 * 1024 * 1024;
/// The same for the first one of a file, so that the first byte does not wait long; and the most that one piece of work
/// reads.
const STEP: u64 = 1024 * 1024;
/// Bytes read into memory at once: each transfer has as much at most.
const CHUNK: u64 = 256 * 1024;

/// What to prefetch: see [`super::Transfer::prefetch`].
pub struct Prefetch {
    file: SharedFile,
    offset: u64,
    end: u64,
    lane: Lane,
    bytes: bool,
}

/// What was prefetched.
#[derive(Debug)]
pub enum Prefetched {
    /// The file's bytes below this offset were brought into the page cache.
    Pages {
        /// The offset.
        until: u64,
    },
    /// The file lies in a file system that keeps its files in memory.
    Memory,
    /// The file lies on `overlayfs`.
    Overlay,
    /// The file's bytes from `offset` on; none: the file ends before.
    Bytes {
        /// Where they begin.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

impl Prefetch {
    /// `is_first`: the receiver waits for the first byte of the file. `bytes`: the page cache cannot be relied on.
    pub(super) fn new(file: SharedFile, offset: u64, length: u64, is_first: bool, bytes: bool) -> Self {
        let most = match (bytes, is_first) {
            (true, _) => CHUNK,
            (false, true) => STEP,
            (false, false) => WINDOW,
        };
        let lane = if is_first { Lane::Short } else { Lane::Long };
        Self { file, offset, end: offset.saturating_add(length.min(most)), lane, bytes }
    }

    /// Reads on threads of the pool, piece by piece. An error is one of the disk, or of the pool.
    pub fn start(self, answer: impl FnOnce(Result<Prefetched>) + Send + 'static) -> Task {
        let volume = Volume::of(self.file.as_fd());
        let lane = self.lane;
        if self.bytes {
            return Pool::global().run(lane, volume, move || self.read(), answer);
        }
        let mut position = self.offset;
        let piece = move || {
            let length = (self.end - position).min(STEP) as usize;
            // What cannot be read is no error here: the transfer comes back for the bytes, and learns why.
            let count = pull(&self.file, position, length) as u64;
            position += count;
            if count == 0 || position >= self.end {
                ControlFlow::Break(Ok(Prefetched::Pages { until: self.end }))
            } else {
                ControlFlow::Continue(())
            }
        };
        Pool::global().run_in_pieces(lane, volume, piece, answer)
    }

    /// Like [`Prefetch::start`], for a thread that has nothing else to do.
    pub fn wait(self) -> Result<Prefetched> {
        let (sender, receiver) = channel();
        self.start(move |outcome| {
            let _ = sender.send(outcome);
        })
        .detach();
        receiver.recv().unwrap_or_else(|_| Err(Error::dropped()))
    }

    fn read(self) -> Result<Prefetched> {
        // Here and not where the question comes up: a FUSE file system is asked for the answer.
        if is_in_memory(self.file.as_fd()) {
            return Ok(Prefetched::Memory);
        }
        if is_on_overlay(self.file.as_fd()) {
            return Ok(Prefetched::Overlay);
        }
        let mut bytes = vec![0; (self.end - self.offset) as usize];
        let count = pread(&self.file, &mut bytes, self.offset).map_err(|errno| Error::system("pread", errno))?;
        bytes.truncate(count);
        Ok(Prefetched::Bytes { offset: self.offset, bytes })
    }
}

/// `sendfile(2)` to `/dev/null` brings each page in and up to date without copying it. Where it is refused, the bytes are
/// read.
fn pull(file: &SharedFile, position: u64, length: usize) -> usize {
    static NULL: OnceLock<Option<File>> = OnceLock::new();
    let Ok(mut offset) = i64::try_from(position) else { return 0 };
    if let Some(null) = NULL.get_or_init(|| File::options().write(true).open("/dev/null").ok())
        && let Ok(count) = nix::sys::sendfile::sendfile64(null, file.as_fd(), Some(&mut offset), length)
    {
        return count;
    }
    let mut buffer = vec![0; length.min(128 * 1024)];
    pread(file, &mut buffer, position).unwrap_or(0)
}

/// A FUSE daemon may answer EINTR to a read that no signal has interrupted, so the number of attempts is bounded.
fn pread(file: &SharedFile, buffer: &mut [u8], offset: u64) -> std::result::Result<usize, Errno> {
    const ATTEMPTS: usize = 100;
    let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    let mut outcome = Err(Errno::EINTR);
    for _ in 0..ATTEMPTS {
        outcome = nix::sys::uio::pread(file.as_fd(), buffer, offset);
        if outcome != Err(Errno::EINTR) {
            break;
        }
    }
    outcome
}
