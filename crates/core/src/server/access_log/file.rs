//! The output of the log, which can be replaced while the log is written.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::output::{self, Output};

/// A file, FIFO or terminal, or the standard output.
pub struct LogFile {
    /// Path and mode; `None` for the standard output.
    name: Option<(PathBuf, u32)>,
    /// An output that the thread of the log has not taken yet.
    opened: Mutex<Option<Output>>,
}

impl LogFile {
    /// Opens the file, FIFO or terminal at `path`. A new file gets `mode`, less the umask. May block on disk I/O; does not wait for
    /// the reader of a FIFO.
    pub fn open(path: &Path, mode: u32) -> Result<Self> {
        let opened = output::open(path, mode)?;
        Ok(Self { name: Some((path.to_owned(), mode)), opened: Mutex::new(Some(opened)) })
    }

    /// The standard output.
    pub fn standard_output() -> Result<Self> {
        Ok(Self { name: None, opened: Mutex::new(Some(output::standard_output()?)) })
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.name.as_ref().map(|(path, _)| path.as_path())
    }

    pub(super) fn reopen(&self) -> Result<()> {
        if let Some((path, mode)) = &self.name {
            let opened = output::open(path, *mode)?;
            *self.lock() = Some(opened);
        }
        Ok(())
    }

    /// Takes the output that was opened last, once.
    pub(super) fn take(&self) -> Option<Output> {
        self.lock().take()
    }

    /// Whether [`LogFile::take`] would return an output.
    pub(super) fn is_reopened(&self) -> bool {
        self.lock().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Output>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
