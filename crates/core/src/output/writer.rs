//! A file that bytes are appended to.
//!
//! All who append to the same file in this process share one writer, whatever name they have for it, so their pieces are
//! written one after another. Other processes are kept apart by `O_APPEND`: each `write(2)` goes to the end that the file has
//! then, also after another process wrote to it or truncated it.

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

/// Writers by device and inode. An inode number is not given to another file while its file is open, so an entry whose writer
/// lives names the right file.
static WRITERS: LazyLock<Mutex<Writers>> = LazyLock::new(Mutex::default);

/// Appends to one open file.
pub struct FileWriter {
    /// Until it is dropped.
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    volume: Volume,
    /// Where the next byte goes; absent: where the kernel puts it.
    position: Option<Mutex<u64>>,
    queue: Serial,
}

impl FileWriter {
    /// The writer of a file that was opened for appending: the one that this process has, or a new one.
    pub fn shared(output: Output) -> Arc<Self> {
        let identity = output.identity();
        let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writers.get(&identity).and_then(Weak::upgrade) {
            return writer;
        }
        let writer = Arc::new(Self::of(output));
        writers.insert(identity, Arc::downgrade(&writer));
        writer
    }

    /// A writer for a file that was opened for appending and is not looked for by others.
    pub fn of(output: Output) -> Self {
        let identity = output.identity();
        Self::new(output.into_fd(), identity, None)
    }

    /// A writer from the position of a regular file that is open for writing. The position itself is not moved.
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

    /// Has `job` write to it, on a thread of the pool, after all jobs added before.
    pub fn run(self: &Arc<Self>, job: impl FnOnce(&Self) + Send + 'static) {
        let writer = self.clone();
        self.queue.run(move || job(&writer));
    }

    /// Appends. May wait for a disk. Returns the bytes written, and why there are not more.
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
        // It may be that of a new writer.
        if writers.get(&self.identity).is_some_and(|writer| writer.strong_count() == 0) {
            writers.remove(&self.identity);
        }
        drop(writers);
        // close(2) may wait for the file system, and this may be the JavaScript thread.
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
    fn one_writer_for_all_names_of_a_file() {
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
    fn a_truncated_file_is_written_from_its_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        let writer = FileWriter::shared(open(&path, 0o600).expect("opened"));
        assert_eq!(writer.write(b"before"), (6, Ok(())));
        std::fs::File::options().write(true).truncate(true).open(&path).expect("truncated");
        assert_eq!(writer.write(b"after"), (5, Ok(())));
        assert_eq!(std::fs::read(&path).expect("there"), b"after");
    }
}
