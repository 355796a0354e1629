//! stub until merge
use crate::error::*;
use std::os::fd::*;
use std::path::Path;
use nix::errno::Errno;
/// m
#[derive(Debug, Clone, Copy)]
pub struct FileMeta { /// s
 pub size: u64 }
/// f
pub struct OpenFile { fd: OwnedFd, meta: FileMeta }
impl OpenFile {
    /// o
    pub fn open(path: &Path) -> Result<Self> {
        let f = std::fs::File::open(path).map_err(|e| Error::system("open", Errno::from_raw(e.raw_os_error().unwrap_or(5))).with_path(path))?;
        Self::from_fd(f.into())
    }
    /// o
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let st = nix::sys::stat::fstat(&fd).map_err(|e| Error::system("fstat", e))?;
        Ok(Self { fd, meta: FileMeta { size: st.st_size as u64 } })
    }
    /// m
    pub fn meta(&self) -> &FileMeta { &self.meta }
}
impl AsFd for OpenFile { fn as_fd(&self) -> BorrowedFd<'_> { self.fd.as_fd() } }
