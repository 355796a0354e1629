//! Reads the next bytes of a file that is not in the page cache, on a pool thread that may wait for the disk.
//!
//! Usually into the page cache, where every method finds them. Where the kernel does not report residency (FUSE and some
//! network file systems), or where the pages were evicted before they were sent, the bytes themselves are returned:
//! sending from the page cache could block the thread that serves other transfers.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::mpsc::channel;

use nix::errno::Errno;

use super::SharedFile;
use super::residency::{is_in_memory, is_on_overlay};
use crate::error::{Error, Result};
use crate::io::pool::{Lane, Pool, Task, Volume};

/// Bytes that one prefetch reads: enough for the full throughput of a disk.
const WINDOW: u64 = 4 * 1024 * 1024;
/// Bytes that the first prefetch of a file reads, to reduce the time to the first byte. Also the bytes read in one step.
const STEP: u64 = 1024 * 1024;
/// Bytes read into memory by one prefetch; the maximum that a transfer holds.
const MAX_BYTES: u64 = 256 * 1024;

/// What to prefetch: see [`super::Transfer::prefetch`].
pub struct Prefetch {
    file: SharedFile,
    offset: u64,
    end: u64,
    lane: Lane,
    bytes: bool,
}

/// The result of a prefetch.
#[derive(Debug)]
pub enum Prefetched {
    /// The file's bytes below this offset were read into the page cache.
    Pages {
        /// The offset.
        until: u64,
    },
    /// The file system keeps its files in memory.
    Memory,
    /// The file is on `overlayfs`.
    Overlay,
    /// Bytes of the file.
    Bytes(PrefetchedBytes),
}

/// Bytes of a file from `offset` on; empty when the file ends before `offset`.
#[derive(Debug)]
pub struct PrefetchedBytes {
    offset: u64,
    bytes: Vec<u8>,
}

impl PrefetchedBytes {
    /// The bytes from `offset` on; `None` when they are not among these. Empty: the file has none there.
    pub(super) fn from(&self, offset: u64) -> Option<&[u8]> {
        let skip = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        // The end of these bytes is the end of the file only if there are none.
        if skip > 0 && skip >= self.bytes.len() { None } else { self.bytes.get(skip..) }
    }
}

impl Prefetch {
    /// `is_first`: the first byte of the file has not been sent. `bytes`: return the bytes themselves.
    pub(super) fn new(file: SharedFile, offset: u64, length: u64, is_first: bool, bytes: bool) -> Self {
        let max = match (bytes, is_first) {
            (true, _) => MAX_BYTES,
            (false, true) => STEP,
            (false, false) => WINDOW,
        };
        let lane = if is_first { Lane::Short } else { Lane::Long };
        Self { file, offset, end: offset.saturating_add(length.min(max)), lane, bytes }
    }

    /// Reads on the pool, in steps. Errors are those of the disk or of the pool.
    pub fn start(self, on_result: impl FnOnce(Result<Prefetched>) + Send + 'static) -> Task {
        let volume = Volume::of(self.file.as_fd());
        let lane = self.lane;
        if self.bytes {
            return Pool::global().run(lane, volume, move || self.read(), on_result);
        }
        let mut position = self.offset;
        let step = move || {
            let length = (self.end - position).min(STEP) as usize;
            // A read error ends the prefetch without an error: the transfer then reads the same bytes and reports it.
            let count = read_into_cache(&self.file, position, length) as u64;
            position += count;
            if count == 0 || position >= self.end {
                ControlFlow::Break(Ok(Prefetched::Pages { until: self.end }))
            } else {
                ControlFlow::Continue(())
            }
        };
        Pool::global().run_in_steps(lane, volume, step, on_result)
    }

    /// As [`Prefetch::start`], but waits for the result.
    pub fn wait(self) -> Result<Prefetched> {
        let (sender, receiver) = channel();
        self.start(move |outcome| {
            let _ = sender.send(outcome);
        })
        .detach();
        receiver.recv().unwrap_or_else(|_| Err(Error::dropped()))
    }

    fn read(self) -> Result<Prefetched> {
        // On the pool, because fstatfs(2) may wait for a FUSE daemon.
        if is_in_memory(self.file.as_fd()) {
            return Ok(Prefetched::Memory);
        }
        if is_on_overlay(self.file.as_fd()) {
            return Ok(Prefetched::Overlay);
        }
        let mut bytes = vec![0; (self.end - self.offset) as usize];
        let count = pread(&self.file, &mut bytes, self.offset).map_err(|errno| Error::system("pread", errno))?;
        bytes.truncate(count);
        Ok(Prefetched::Bytes(PrefetchedBytes { offset: self.offset, bytes }))
    }
}

/// `sendfile(2)` to `/dev/null` reads each page into the page cache without copying it. Where it is refused, the bytes are
/// read into a buffer.
fn read_into_cache(file: &SharedFile, position: u64, length: usize) -> usize {
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

/// A FUSE daemon may answer EINTR each time, so the number of attempts is limited.
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
