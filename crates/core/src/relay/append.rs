//! A file that pipes are written out to, by any number of links and threads.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::pipe::Pipe;
use crate::sys::SysResult;
use crate::sys::pipe::{SpliceFlags, splice};

/// `splice(2)` refuses files that are open for appending, so the end is kept here: each writer takes its stretch first.
pub struct AppendedFile {
    path: PathBuf,
    opened: OnceLock<SysResult<(OwnedFd, AtomicU64)>>,
}

impl AppendedFile {
    /// The file is opened, or made, when it is first written to.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), opened: OnceLock::new() }
    }

    /// A regular file that is open for writing, from its position on.
    pub fn open_from(fd: OwnedFd) -> Result<Self> {
        let position =
            nix::unistd::lseek(&fd, 0, nix::unistd::Whence::SeekCur).map_err(|errno| Error::system("lseek", errno))?;
        let opened = OnceLock::from(Ok((fd, AtomicU64::new(position as u64))));
        Ok(Self { path: PathBuf::new(), opened })
    }

    /// Opens it now.
    pub fn open(&self) -> Result<()> {
        self.file().map(|_| ()).map_err(|errno| Error::system("open", errno).with_path(&self.path))
    }

    fn file(&self) -> SysResult<&(OwnedFd, AtomicU64)> {
        let opened = self.opened.get_or_init(|| {
            let failed = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
            let file = OpenOptions::new().create(true).write(true).truncate(false).open(&self.path).map_err(failed)?;
            let end = file.metadata().map_err(failed)?.len();
            Ok((file.into(), AtomicU64::new(end)))
        });
        opened.as_ref().map_err(|errno| *errno)
    }

    /// Writes out what is in the pipe, until it is empty. Returns the bytes, and why there are not more.
    pub fn append(&self, pipe: &Pipe) -> (usize, SysResult<()>) {
        let mut written = 0;
        let result = self.file().and_then(|(file, end)| {
            loop {
                let available = pipe.available()?;
                if available == 0 {
                    return Ok(());
                }
                let mut offset = end.fetch_add(available as u64, Ordering::Relaxed);
                let stretch_end = offset + available as u64;
                while offset < stretch_end {
                    let rest = (stretch_end - offset) as usize;
                    match splice(pipe.read_end(), None, file.as_fd(), Some(offset), rest, SpliceFlags::default()) {
                        Ok(0) => return Err(Errno::EIO),
                        Ok(count) => {
                            offset += count as u64;
                            written += count;
                        }
                        Err(Errno::EINTR) => {}
                        Err(errno) => return Err(errno),
                    }
                }
            }
        });
        (written, result)
    }
}
