//! A file in the cache, or one that was too large for it: its metadata and its bytes, as long as somebody has it.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

use crate::error::{Code, Error, Result};
use crate::fs::{Access, FileMeta, OpenFile};
use crate::transfer::{FileSource, Part};
use zerosend_sys::io::pread_resident;
use zerosend_sys::memory::Mapping;

/// Where the bytes are.
enum Content {
    /// In memory: a small file, read as a whole. It costs neither a descriptor nor a mapping.
    Block(Arc<[u8]>),
    /// In the page cache, mapped.
    Mapped(Arc<MappedOpen>),
    /// In an open file that was too large to be kept.
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

/// One version of a file. Whoever holds it has its bytes, also when the cache has long let go of it.
pub struct CachedFile {
    path: PathBuf,
    meta: FileMeta,
    content: Content,
    is_local: bool,
    is_generated: bool,
    pub(super) hits: AtomicU64,
}

/// What became of reading a file into a block.
pub(super) enum Loaded {
    File(CachedFile),
    /// It was written meanwhile, or just before, so that nothing tells this version from the next.
    Unsettled(OpenFile),
    /// The disk would have to be waited for.
    WouldBlock,
}

impl CachedFile {
    /// A file that is not kept.
    pub(super) fn open(path: PathBuf, file: OpenFile) -> Self {
        let (meta, is_local) = (*file.meta(), file.is_local());
        Self {
            path,
            meta,
            content: Content::Open(Arc::new(file)),
            is_local,
            is_generated: false,
            hits: AtomicU64::new(0),
        }
    }

    /// The bytes of a file whose own size says nothing, see [`crate::fs::pseudo_file`]. It is not kept.
    pub(crate) fn generated(path: PathBuf, file: &OpenFile, bytes: Vec<u8>) -> Self {
        let meta = FileMeta { size: bytes.len() as u64, ..*file.meta() };
        let (content, is_local) = (Content::Block(bytes.into()), file.is_local());
        Self { path, meta, content, is_local, is_generated: true, hits: AtomicU64::new(0) }
    }

    /// True when its metadata says nothing of its bytes.
    pub(crate) fn is_generated(&self) -> bool {
        self.is_generated
    }

    /// Reads a small file.
    pub(super) fn read(path: PathBuf, file: OpenFile, access: Access) -> Result<Loaded> {
        let meta = *file.meta();
        if !meta.is_settled() {
            return Ok(Loaded::Unsettled(file));
        }
        let mut bytes = vec![0; meta.size as usize];
        let mut have = 0;
        while have < bytes.len() {
            let rest = &mut bytes[have..];
            let read = match access {
                Access::CachedOnly => pread_resident(file.as_fd(), rest, have as u64),
                Access::MayBlock => nix::sys::uio::pread(&file, rest, have as i64),
            };
            match read {
                Ok(0) => return Ok(Loaded::Unsettled(file)),
                Ok(count) => have += count,
                Err(Errno::EINTR) => {}
                // Not there, or this file system cannot tell: `preadv2(2)`.
                Err(Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM)
                    if access == Access::CachedOnly =>
                {
                    return Ok(Loaded::WouldBlock);
                }
                Err(errno) => return Err(Error::system("pread", errno).with_path(path)),
            }
        }
        if FileMeta::of(&file)? != meta {
            return Ok(Loaded::Unsettled(file));
        }
        let content = Content::Block(bytes.into());
        Ok(Loaded::File(Self {
            path,
            meta,
            content,
            is_local: file.is_local(),
            is_generated: false,
            hits: AtomicU64::new(0),
        }))
    }

    /// Maps a file. Gives it back where its file system maps nothing, or there is no mapping left to be had.
    pub(super) fn map(
        path: PathBuf,
        file: OpenFile,
        prepare: impl FnOnce(&Mapping),
    ) -> std::result::Result<Self, OpenFile> {
        let meta = *file.meta();
        let Ok(length) = usize::try_from(meta.size) else { return Err(file) };
        match Mapping::new(file.as_fd(), 0, length) {
            Ok(mapping) => {
                prepare(&mapping);
                let is_local = file.is_local();
                let content = Content::Mapped(Arc::new(MappedOpen { file, mapping }));
                Ok(Self { path, meta, content, is_local, is_generated: false, hits: AtomicU64::new(0) })
            }
            Err(_) => Err(file),
        }
    }

    /// The path it was asked for by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata of this version.
    pub fn meta(&self) -> &FileMeta {
        &self.meta
    }

    /// Whether its file system can be asked without waiting for another process or machine.
    pub(super) fn is_local(&self) -> bool {
        self.is_local
    }

    /// The weak entity tag of this version, that of the plugin and the handler.
    pub fn etag(&self) -> String {
        if let (true, Content::Block(bytes)) = (self.is_generated, &self.content) {
            return format!("W/\"{}\"", &blake3::hash(bytes).to_hex()[..32]);
        }
        self.meta.weak_tag()
    }

    /// How often the cache has given it out, the first time not counted.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// True when its bytes are mapped: it then has a descriptor and a mapping.
    pub fn is_mapped(&self) -> bool {
        matches!(self.content, Content::Mapped(_))
    }

    /// Its bytes, when they are in memory.
    pub fn block(&self) -> Option<&[u8]> {
        if let Content::Block(bytes) = &self.content { Some(bytes) } else { None }
    }

    /// The open file behind it, when its bytes are not in memory.
    pub fn source(&self) -> Option<BorrowedFd<'_>> {
        match &self.content {
            Content::Block(_) => None,
            Content::Mapped(mapped) => Some(mapped.as_fd()),
            Content::Open(file) => Some((**file).as_fd()),
        }
    }

    /// A stretch of it, to be sent. It must lie within [`FileMeta::size`].
    pub fn part(&self, offset: u64, length: u64) -> Part {
        match &self.content {
            Content::Block(bytes) => {
                Part::Block { bytes: bytes.clone(), offset: offset as usize, length: length as usize }
            }
            Content::Mapped(mapped) => Part::File { file: mapped.clone(), offset, length },
            Content::Open(file) => Part::File { file: file.clone(), offset, length },
        }
    }

    /// Copies bytes from `offset` on. May wait for a disk. [`Code::Truncated`] when the file has become shorter than it was.
    pub fn read_at(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let end = offset.checked_add(length).filter(|end| *end <= self.meta.size).ok_or_else(|| {
            Error::new(
                Code::OutOfRange,
                format!("offset {offset} and length {length} reach beyond the {} bytes of the file", self.meta.size),
            )
        })?;
        let Some(fd) = self.source() else {
            return Ok(self.block().unwrap_or_default()[offset as usize..end as usize].to_vec());
        };
        let mut bytes = vec![0; length as usize];
        let mut have = 0;
        while have < bytes.len() {
            match nix::sys::uio::pread(fd, &mut bytes[have..], (offset + have as u64) as i64) {
                Ok(0) => {
                    return Err(Error::new(Code::Truncated, "the file is shorter than it was when it was opened")
                        .with_path(&self.path));
                }
                Ok(count) => have += count,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::system("pread", errno).with_path(&self.path)),
            }
        }
        Ok(bytes)
    }
}

impl std::fmt::Debug for CachedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedFile").field("path", &self.path).field("meta", &self.meta).finish_non_exhaustive()
    }
}
