//! [`CachedFile`]: one version of a file, its metadata and its bytes.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;

use crate::error::{Code, Error, Result};
use crate::fs::{Access, FileMeta, OpenFile};
use crate::io::read_full::{read_full, read_full_at};
use crate::transfer::{FileSource, Part};
use zerosend_http::negotiation::Encoding;
use zerosend_http::site::Head;
use zerosend_sys::memory::Mapping;
use zerosend_sys::residency::pread_resident;

/// Where the bytes are.
enum Content {
    /// In memory.
    Memory(Arc<[u8]>),
    /// In the page cache, mapped.
    Mapped(Arc<MappedOpen>),
    /// In an open file that the cache does not keep.
    Open(Arc<OpenFile>),
}

/// An open file and a mapping of all of it.
struct MappedOpen {
    file: OpenFile,
    mapping: Mapping,
}

impl AsFd for MappedOpen {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl FileSource for MappedOpen {
    fn mapping(&self) -> Option<&Mapping> {
        Some(&self.mapping)
    }
}

/// One version of a file. The bytes stay valid after eviction, for as long as the `Arc` is held.
pub struct CachedFile {
    path: PathBuf,
    meta: FileMeta,
    content: Content,
    is_local: bool,
    is_snapshot: bool,
    hits: AtomicU64,
    /// Response heads, for the file as it is and as a coding of another file. A cache entry below a root is used by the one
    /// site that has the root.
    heads: [OnceLock<Arc<Head>>; 2],
}

/// The result of reading a file into memory.
pub(super) enum Loaded {
    File(CachedFile),
    /// It changed during the read or a moment before, so that its metadata does not identify this version.
    Unsettled(OpenFile),
    /// The read would block on the disk.
    WouldBlock,
}

impl CachedFile {
    fn new(path: PathBuf, meta: FileMeta, content: Content, is_local: bool) -> Self {
        Self { path, meta, content, is_local, is_snapshot: false, hits: AtomicU64::new(0), heads: Default::default() }
    }

    /// A file that is not kept.
    pub(super) fn open(path: PathBuf, file: OpenFile) -> Self {
        let (meta, is_local) = (*file.meta(), file.is_local());
        Self::new(path, meta, Content::Open(Arc::new(file)), is_local)
    }

    /// The current bytes of a pseudo file, see [`crate::fs::pseudo_file`]. It is not kept.
    pub(crate) fn snapshot(path: PathBuf, file: &OpenFile, bytes: Vec<u8>) -> Self {
        let meta = FileMeta { size: bytes.len() as u64, ..*file.meta() };
        let content = Content::Memory(bytes.into());
        Self { is_snapshot: true, ..Self::new(path, meta, content, file.is_local()) }
    }

    /// Whether it is the snapshot of a pseudo file, whose metadata does not identify its bytes.
    pub(crate) fn is_snapshot(&self) -> bool {
        self.is_snapshot
    }

    /// Reads a small file.
    pub(super) fn read(path: PathBuf, file: OpenFile, access: Access) -> Result<Loaded> {
        let meta = *file.meta();
        if !meta.is_settled() {
            return Ok(Loaded::Unsettled(file));
        }
        let mut bytes = vec![0; meta.size as usize];
        let read = match access {
            Access::CachedOnly => {
                read_full(&mut bytes, |rest, filled| pread_resident(file.as_fd(), rest, filled as u64))
            }
            Access::MayBlock => read_full_at(&file, 0, &mut bytes),
        };
        match read {
            Ok(count) if count == bytes.len() && FileMeta::of(&file)? == meta => {
                let is_local = file.is_local();
                Ok(Loaded::File(Self::new(path, meta, Content::Memory(bytes.into()), is_local)))
            }
            Ok(_) => Ok(Loaded::Unsettled(file)),
            // preadv2(2): not resident, or the file system or a sandbox does not support RWF_NOWAIT.
            Err(Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) if access == Access::CachedOnly => {
                Ok(Loaded::WouldBlock)
            }
            Err(errno) => Err(Error::system("pread", errno).with_path(path)),
        }
    }

    /// Maps a file. Returns it unmapped where `mmap(2)` fails.
    pub(super) fn map(
        path: PathBuf,
        file: OpenFile,
        prepare: impl FnOnce(&Mapping),
    ) -> std::result::Result<Self, OpenFile> {
        let meta = *file.meta();
        let Ok(length) = usize::try_from(meta.size) else { return Err(file) };
        let Ok(mapping) = Mapping::read_only(file.as_fd(), 0, length) else { return Err(file) };
        prepare(&mapping);
        let is_local = file.is_local();
        Ok(Self::new(path, meta, Content::Mapped(Arc::new(MappedOpen { file, mapping })), is_local))
    }

    /// The path it was requested by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata of this version.
    pub fn meta(&self) -> &FileMeta {
        &self.meta
    }

    /// Whether its file system answers from the memory of this machine, see [`crate::fs::mounts`].
    pub(super) fn is_local(&self) -> bool {
        self.is_local
    }

    /// The weak entity tag of this version, as the plugin and the handler send it.
    pub fn etag(&self) -> String {
        if let (true, Content::Memory(bytes)) = (self.is_snapshot, &self.content) {
            return format!("W/\"{}\"", &blake3::hash(bytes).to_hex()[..32]);
        }
        self.meta.weak_tag()
    }

    /// The slot for the head of a response with this file, as the `encoding` of another file or as it is. `None` for a file
    /// that the cache does not keep.
    pub(crate) fn head(&self, encoding: Option<Encoding>) -> Option<&OnceLock<Arc<Head>>> {
        match self.content {
            Content::Open(_) => None,
            _ => self.heads.get(usize::from(encoding.is_some())),
        }
    }

    /// Number of cache hits. The lookup that loaded the file does not count.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub(super) fn count_hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// True when its bytes are mapped: it then holds a descriptor and a mapping.
    pub fn is_mapped(&self) -> bool {
        matches!(self.content, Content::Mapped(_))
    }

    /// Its bytes, when they are in memory.
    pub fn bytes(&self) -> Option<&[u8]> {
        if let Content::Memory(bytes) = &self.content { Some(bytes) } else { None }
    }

    /// The descriptor of its file, when its bytes are not in memory.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.content {
            Content::Memory(_) => None,
            Content::Mapped(mapped) => Some(mapped.as_fd()),
            Content::Open(file) => Some((**file).as_fd()),
        }
    }

    /// A range of its bytes to send, which must lie within [`FileMeta::size`].
    pub fn part(&self, offset: u64, length: u64) -> Part {
        match &self.content {
            Content::Memory(bytes) => {
                Part::Block { bytes: bytes.clone(), offset: offset as usize, length: length as usize }
            }
            Content::Mapped(mapped) => Part::File { file: mapped.clone(), offset, length },
            Content::Open(file) => Part::File { file: file.clone(), offset, length },
        }
    }

    /// Copies `length` bytes from `offset` on. May block on the disk. [`Code::OutOfRange`]; [`Code::Truncated`] when the file
    /// has become shorter.
    pub fn read_at(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let end = offset.checked_add(length).filter(|end| *end <= self.meta.size).ok_or_else(|| {
            let size = self.meta.size;
            let message = format!("offset {offset} and length {length} exceed the file size of {size} bytes");
            Error::new(Code::OutOfRange, message)
        })?;
        let Some(fd) = self.descriptor() else {
            return Ok(self.bytes().unwrap_or_default()[offset as usize..end as usize].to_vec());
        };
        let mut bytes = vec![0; length as usize];
        match read_full_at(fd, offset, &mut bytes) {
            Ok(count) if count == bytes.len() => Ok(bytes),
            Ok(_) => {
                let message = "the file is shorter than when it was opened; open it again";
                Err(Error::new(Code::Truncated, message).with_path(&self.path))
            }
            Err(errno) => Err(Error::system("pread", errno).with_path(&self.path)),
        }
    }
}

impl std::fmt::Debug for CachedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedFile").field("path", &self.path).field("meta", &self.meta).finish_non_exhaustive()
    }
}
