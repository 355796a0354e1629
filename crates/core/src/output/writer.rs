//! Appends to a file.
//!
//! All users of a file in this process share one writer, whatever path they opened, so their writes are not mixed. Between
//! processes `O_APPEND` does that: each `write(2)` appends to the current end of the file, also after another process has
//! written to it or truncated it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::Whence;

use super::open::Output;
use super::serial::Serial;
use crate::error::{Error, Result};
use crate::io::pool::{Lane, Pool, Volume};
use zerosend_sys::SysResult;

type Writers = HashMap<(u64, u64), Weak<FileWriter>>;

/// Writers by device and inode. An inode number is not reused while the file is open, so an entry with a live writer refers
/// to the right file.
static WRITERS: LazyLock<Mutex<Writers>> = LazyLock::new(Mutex::default);

/// Appends to one open file.
pub struct FileWriter {
    /// `None` only in `drop`.
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    volume: Volume,
    /// Offset of the next byte; `None`: the end of the file (`O_APPEND`).
    position: Option<Mutex<u64>>,
    queue: Serial,
}

impl FileWriter {
    /// The writer that this process has for a file opened for appending, or a new one.
    pub fn shared(output: Output) -> Arc<Self> {
        let identity = output.identity();
        let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writers.get(&identity).and_then(Weak::upgrade) {
            return writer;
        }
        let writer = Arc::new(Self::unshared(output));
        writers.insert(identity, Arc::downgrade(&writer));
        writer
    }

    /// A writer that [`FileWriter::shared`] does not return, for a file opened for appending.
    pub fn unshared(output: Output) -> Self {
        let identity = output.identity();
        Self::new(output.into_fd(), identity, None)
    }

    /// A writer that starts at the position of a regular file open for writing. The position of the descriptor does not move.
    pub fn from_position(fd: OwnedFd) -> Result<Self> {
        let position =
            nix::unistd::lseek(&fd, 0, Whence::SeekCur).map_err(|errno| Error::system("lseek", errno))? as u64;
        let stat = fstat(&fd).map_err(|errno| Error::system("fstat", errno))?;
        Ok(Self::new(fd, (stat.st_dev, stat.st_ino), Some(Mutex::new(position))))
    }

    fn new(fd: OwnedFd, identity: (u64, u64), position: Option<Mutex<u64>>) -> Self {
        let volume = Volume::of_device(identity.0);
        Self { fd: Some(fd), identity, volume, position, queue: Serial::new(volume) }
    }

    /// Device and inode.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Runs `job` on the pool, after all jobs added before.
    pub fn run(self: &Arc<Self>, job: impl FnOnce(&Self) + Send + 'static) {
        let writer = self.clone();
        self.queue.run(move || job(&writer));
    }

    /// Appends `bytes`. May wait for a disk. Returns the number of bytes written, and the error that prevented more.
    pub fn write(&self, bytes: &[u8]) -> (usize, SysResult<()>) {
        let mut written = 0;
        while written < bytes.len() {
            match self.write_once(&bytes[written..]) {
                Ok(0) => return (written, Err(Errno::EIO)),
                Ok(count) => written += count,
                Err(Errno::EINTR) => {}
                Err(errno) => return (written, Err(errno)),
            }
        }
        (written, Ok(()))
    }

    fn write_once(&self, bytes: &[u8]) -> SysResult<usize> {
        let fd = self.fd.as_ref().ok_or(Errno::EBADF)?;
        let Some(position) = &self.position else { return nix::unistd::write(fd, bytes) };
        let mut position = position.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = i64::try_from(*position).map_err(|_| Errno::EFBIG)?;
        let count = nix::sys::uio::pwrite(fd, bytes, offset)?;
        *position += count as u64;
        Ok(count)
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        // The entry may be that of a newer writer.
        if writers.get(&self.identity).is_some_and(|writer| writer.strong_count() == 0) {
            writers.remove(&self.identity);
        }
        drop(writers);
        // On the pool: close(2) may wait for the file system, and this may be the JavaScript thread.
        let fd = self.fd.take();
        let close = move || {
            drop(fd);
            Ok(())
        };
        Pool::global().run(Lane::Long, self.volume, close, |_| {}).detach();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::open;

    #[test]
    fn all_paths_of_a_file_share_one_writer() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, other) = (directory.path().join("a"), directory.path().join("b"));
        let one = FileWriter::shared(open(&path, 0o600).expect("opened"));
        std::fs::hard_link(&path, &other).expect("linked");
        let two = FileWriter::shared(open(&other, 0o600).expect("opened"));
        assert!(Arc::ptr_eq(&one, &two));
        std::fs::remove_file(&path).expect("removed");
        let three = FileWriter::shared(open(&path, 0o600).expect("opened"));
        assert!(!Arc::ptr_eq(&one, &three));
    }

    #[test]
    fn a_write_after_a_truncation_appends_at_the_new_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        let writer = FileWriter::shared(open(&path, 0o600).expect("opened"));
        assert_eq!(writer.write(b"before"), (6, Ok(())));
        std::fs::File::options().write(true).truncate(true).open(&path).expect("truncated");
        assert_eq!(writer.write(b"after"), (5, Ok(())));
        assert_eq!(std::fs::read(&path).expect("there"), b"after");
    }
}
