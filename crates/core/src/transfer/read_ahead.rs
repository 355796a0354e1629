//! Brings the next stretch of a cold file into the page cache, on a thread that may wait for the disk.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use super::SharedFile;

/// How far one read-ahead goes, in bytes: large enough for a disk's full rate, small enough that the first byte does
/// not wait long.
pub(super) const WINDOW: u64 = 4 * 1024 * 1024;

/// Bytes asked of the kernel in one call.
const STEP: u64 = 1024 * 1024;

/// A stretch of a file to read ahead.
pub struct ReadAhead {
    file: SharedFile,
    offset: u64,
    end: u64,
}

impl ReadAhead {
    pub(super) fn new(file: SharedFile, offset: u64, length: u64) -> Self {
        Self { file, offset, end: offset + length.min(WINDOW) }
    }

    /// Reads, waits, and returns the offset below which the bytes are now resident.
    ///
    /// `sendfile(2)` to `/dev/null` brings each page in and up to date without copying it. Where it is refused, the
    /// bytes are read. An unreadable or shorter file is no error here: the transfer will find out and say so.
    pub fn run(self) -> u64 {
        let mut position = self.offset;
        while position < self.end {
            let length = (self.end - position).min(STEP) as usize;
            match pull(&self.file, position, length) {
                0 => break,
                count => position += count as u64,
            }
        }
        self.end
    }
}

fn pull(file: &SharedFile, position: u64, length: usize) -> usize {
    static NULL: OnceLock<Option<File>> = OnceLock::new();
    let Ok(mut offset) = i64::try_from(position) else { return 0 };
    if let Some(null) = NULL.get_or_init(|| File::options().write(true).open("/dev/null").ok())
        && let Ok(count) = nix::sys::sendfile::sendfile64(null, file.as_fd(), Some(&mut offset), length)
    {
        return count;
    }
    let mut buffer = vec![0; length.min(128 * 1024)];
    nix::sys::uio::pread(file.as_fd(), &mut buffer, position as i64).unwrap_or(0)
}
