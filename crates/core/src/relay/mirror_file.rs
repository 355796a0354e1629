//! A file of a mirror that is shared by all connections.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use super::append_backlog::AppendBacklog;
use crate::error::{Code, Error, Result};
use crate::output::{self, FileWriter, Output};
use zerosend_sys::SysResult;

/// One file, FIFO, pipe or terminal for all connections.
pub struct MirrorFile {
    path: PathBuf,
    mode: u32,
    current: Mutex<Current>,
    backlog: Arc<AppendBacklog>,
}

#[derive(Clone)]
enum Current {
    File(Arc<FileWriter>),
    Stream(Arc<OwnedFd>),
}

impl From<Output> for Current {
    fn from(output: Output) -> Self {
        if output.is_stream() {
            Self::Stream(Arc::new(output.into_fd()))
        } else {
            Self::File(FileWriter::shared(output))
        }
    }
}

impl MirrorFile {
    /// Opens the file, or creates it with the permissions `mode`. May wait for a disk.
    pub fn open(path: &Path, mode: u32) -> Result<Self> {
        let current = output::open(path, mode)?.into();
        Ok(Self { path: path.to_owned(), mode, current: Mutex::new(current), backlog: Arc::default() })
    }

    /// Opens the path again. Keeps the open file if that fails. May wait for a disk.
    pub fn reopen(&self) -> Result<()> {
        let opened: Current = output::open(&self.path, self.mode)?.into();
        let mut current = self.lock();
        if matches!(*current, Current::File(_)) != matches!(opened, Current::File(_)) {
            let message = "an open mirror cannot change between a file and a FIFO or terminal: close the proxy first";
            return Err(Error::new(Code::InvalidArgument, message).with_path(&self.path));
        }
        *current = opened;
        Ok(())
    }

    pub(super) fn backlog(&self) -> &Arc<AppendBacklog> {
        &self.backlog
    }

    /// A duplicate of the descriptor of a FIFO, pipe or terminal; `None` for a file.
    pub(super) fn stream(&self) -> Option<SysResult<OwnedFd>> {
        match &*self.lock() {
            Current::Stream(fd) => Some(fd.try_clone().map_err(errno_of)),
            Current::File(_) => None,
        }
    }

    /// Runs `job` with the writer of the open file.
    pub(super) fn run(&self, job: impl FnOnce(SysResult<&FileWriter>) + Send + 'static) {
        match self.lock().clone() {
            Current::File(writer) => writer.run(move |writer| job(Ok(writer))),
            // Not reached: streams are written to by `MirrorSink::Stream`.
            Current::Stream(_) => job(Err(Errno::ESPIPE)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
