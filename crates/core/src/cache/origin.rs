//! Where a cached file comes from: an absolute path, or a path below a root.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;

use super::key::LookupKey;
use crate::error::Result;
use crate::fs::{Access, FileMeta, Identity, Lookup, OpenFile, Visit};
use zerosend_sys::SysResult;

/// How a file is found on the disk.
pub(super) trait Origin {
    /// Whether [`Origin::stat`] and [`Origin::open`] may block.
    fn access(&self) -> Access;
    /// The current metadata, `None` when it cannot be read.
    fn stat(&self) -> Option<FileMeta>;
    /// Opens the file.
    fn open(&self) -> Result<Lookup>;
    /// The full path.
    fn path(&self) -> PathBuf;
    /// The directory that the root currently is; an error when that would block or is unknown.
    fn root(&self) -> SysResult<Option<Identity>>;
    /// The key in the cache.
    fn key(&self) -> LookupKey;
}

/// An absolute path.
pub(super) struct AbsolutePath<'a>(pub &'a Path);

impl Origin for AbsolutePath<'_> {
    fn access(&self) -> Access {
        Access::MayBlock
    }

    fn stat(&self) -> Option<FileMeta> {
        FileMeta::at(AT_FDCWD, &CString::new(self.0.as_os_str().as_bytes()).ok()?)
    }

    fn open(&self) -> Result<Lookup> {
        OpenFile::open(self.0).map(Lookup::File)
    }

    fn path(&self) -> PathBuf {
        self.0.to_owned()
    }

    fn root(&self) -> SysResult<Option<Identity>> {
        Ok(None)
    }

    fn key(&self) -> LookupKey {
        LookupKey::new(0, self.0.as_os_str().as_bytes())
    }
}

/// A path below the root of a visit.
pub(super) struct BelowRoot<'a> {
    pub visit: &'a Visit<'a>,
    pub relative: &'a str,
}

impl Origin for BelowRoot<'_> {
    fn access(&self) -> Access {
        self.visit.access()
    }

    fn stat(&self) -> Option<FileMeta> {
        self.visit.root().stat(self.relative)
    }

    fn open(&self) -> Result<Lookup> {
        self.visit.open(self.relative)
    }

    fn path(&self) -> PathBuf {
        self.visit.root().path().join(self.relative)
    }

    fn root(&self) -> SysResult<Option<Identity>> {
        self.visit.identity()
    }

    fn key(&self) -> LookupKey {
        LookupKey::new(self.visit.root().id(), self.relative.as_bytes())
    }
}
