//! [`MappedFile`]: a mapped file in which a truncation is an error instead of a signal.
//!
//! User space never accesses the mapped pages. The kernel copies them, by `process_vm_readv(2)` and `process_vm_writev(2)` on
//! this process, which report `EFAULT` for a page that a truncated file no longer has. Where a sandbox forbids those calls,
//! `pread(2)` and `pwrite(2)` replace them in the modes that share the page cache.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode as Permissions;
use nix::sys::uio::{pread, pwrite};
use nix::unistd::ftruncate;

use crate::error::{Code, Error, Result};
use crate::fs::FileMeta;
use crate::io::pool::Volume;
use crate::io::read_full::read_full;
use zerosend_sys::memory::{Advice, MapMode, Mapping};
use zerosend_sys::page::page_size;

/// Options of [`MappedFile::open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapOptions {
    /// The visibility of writes.
    pub mode: MapMode,
    /// Bytes from the beginning of the file. Default: all. With [`MapMode::Shared`] a missing file is created, and a shorter
    /// file extended, to this length.
    pub length: Option<u64>,
    /// Read all of it into memory; see `mmap(2)`, `MAP_POPULATE`.
    pub populate: bool,
}

/// The pages of a mapping that are in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedResidency {
    /// Size of a page in bytes.
    pub page_size: u64,
    /// Number of pages of the mapping.
    pub pages: u64,
    /// Number of them in memory.
    pub resident: u64,
}

/// A mapped file.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: OwnedFd,
    mapping: Mapping,
    mode: MapMode,
}

impl MappedFile {
    /// Opens and maps a file. May wait for the disk. [`Code::OutOfRange`]: the length exceeds the file; [`Code::InvalidArgument`]:
    /// the file is empty; [`Code::NotRegularFile`]; and the errors of `open(2)`, `ftruncate(2)` and `mmap(2)`.
    pub fn open(path: &Path, options: &MapOptions) -> Result<Self> {
        let failed = |syscall| move |errno| Error::system(syscall, errno).with_path(path);
        let flags = match (options.mode, options.length) {
            (MapMode::Shared, Some(_)) => OFlag::O_RDWR | OFlag::O_CREAT,
            (MapMode::Shared, None) => OFlag::O_RDWR,
            _ => OFlag::O_RDONLY,
        };
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        let file = open(path, flags, Permissions::from_bits_truncate(0o666)).map_err(failed("open"))?;
        let meta = FileMeta::of(&file).map_err(|error| error.with_path(path))?;
        if !meta.is_file() {
            let message = format!("only a regular file can be mapped, and this is {}", meta.kind());
            return Err(Error::new(Code::NotRegularFile, message).with_path(path));
        }
        let length = options.length.unwrap_or(meta.size);
        if length == 0 {
            let message = "cannot map an empty file; pass `length` with mode 'shared' to extend it";
            return Err(Error::new(Code::InvalidArgument, message).with_path(path));
        }
        if length > meta.size {
            if options.mode != MapMode::Shared {
                let message = format!("length {length} exceeds the file of {} bytes", meta.size);
                return Err(Error::new(Code::OutOfRange, message).with_path(path));
            }
            let length = i64::try_from(length).map_err(|_| failed("ftruncate")(Errno::EFBIG))?;
            ftruncate(&file, length).map_err(failed("ftruncate"))?;
        }
        let size = usize::try_from(length).map_err(|_| failed("mmap")(Errno::ENOMEM))?;
        let mapping = Mapping::new(&file, 0, size, options.mode, options.populate).map_err(failed("mmap"))?;
        Ok(Self { path: path.to_owned(), file, mapping, mode: options.mode })
    }

    /// The file system of the file.
    pub fn volume(&self) -> Volume {
        Volume::of(&self.file)
    }

    /// Bytes mapped.
    pub fn size(&self) -> u64 {
        self.mapping.len() as u64
    }

    /// The mode of the mapping.
    pub fn mode(&self) -> MapMode {
        self.mode
    }

    /// A copy of `length` bytes from `offset` on. [`Code::OutOfRange`]: the range exceeds the mapping; [`Code::Truncated`]: the
    /// file no longer has the range.
    pub fn read_at(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.check_range(offset, length)?;
        let mut bytes = vec![0; length as usize];
        let read = read_full(&mut bytes, |rest, filled| {
            let at = offset as usize + filled;
            match self.mapping.read(at, rest) {
                Err(Errno::ENOSYS | Errno::EPERM) if self.mode != MapMode::Private => {
                    pread(&self.file, rest, at as i64)
                }
                // A page that cannot be mapped has no private copy, so the bytes of the file are right, or reading it returns the
                // reason. Only for this page: the pages after it may have private copies.
                Err(Errno::EFAULT) => {
                    let page = page_size() as usize;
                    let end = rest.len().min(page - at % page);
                    pread(&self.file, &mut rest[..end], at as i64)
                }
                other => other,
            }
        });
        match read {
            Ok(count) if count == bytes.len() => {}
            Ok(_) => return Err(self.truncated()),
            Err(errno) => return Err(Error::system("read", errno).with_path(&self.path)),
        }
        // The last page of a truncated file stays mapped, with zeros behind the end of the file.
        self.check_end(offset + length)?;
        Ok(bytes)
    }

    /// Writes `bytes` from `offset` on. [`Code::InvalidArgument`]: the mapping is read-only; other errors as of
    /// [`MappedFile::read_at`].
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.mode == MapMode::Read {
            let message = "cannot write: the file is mapped with mode 'read'; use 'private' or 'shared'";
            return Err(Error::new(Code::InvalidArgument, message).with_path(&self.path));
        }
        self.check_range(offset, bytes.len() as u64)?;
        self.check_end(offset + bytes.len() as u64)?;
        let mut done = 0;
        while done < bytes.len() {
            let at = offset as usize + done;
            let written = match self.mapping.write(at, &bytes[done..]) {
                Err(Errno::ENOSYS | Errno::EPERM) if self.mode == MapMode::Shared => {
                    pwrite(&self.file, &bytes[done..], at as i64)
                }
                Err(Errno::EFAULT) => self.write_unmapped(at, &bytes[done..]),
                other => other,
            };
            match written {
                Ok(0) => return Err(self.truncated()),
                Ok(count) => done += count,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::system("write", errno).with_path(&self.path)),
            }
        }
        self.check_end(offset + bytes.len() as u64)
    }

    /// Writes to a page that cannot be mapped. `EFAULT` there means a truncated file, a full file system or a failing disk; a
    /// call on the file itself returns the reason.
    fn write_unmapped(&self, at: usize, bytes: &[u8]) -> std::result::Result<usize, Errno> {
        if FileMeta::of(&self.file).is_ok_and(|meta| meta.size <= at as u64) {
            return Ok(0);
        }
        if self.mode == MapMode::Shared {
            return pwrite(&self.file, bytes, at as i64);
        }
        // Private mode: the page of the file can be read, but its copy cannot be allocated.
        match pread(&self.file, &mut [0], at as i64) {
            Ok(_) => Err(Errno::ENOSPC),
            Err(errno) => Err(errno),
        }
    }

    /// Writes changed pages to the disk and, with `wait`, waits for it; see `msync(2)`. Only [`MapMode::Shared`] has any.
    pub fn flush(&self, wait: bool) -> Result<()> {
        if self.mode != MapMode::Shared {
            return Ok(());
        }
        self.mapping.sync(wait).map_err(|errno| Error::system("msync", errno).with_path(&self.path))
    }

    /// Advises the kernel how the mapping will be accessed; see `madvise(2)`. `EINVAL`: unknown advice.
    pub fn advise(&self, advice: Advice) -> Result<()> {
        self.mapping.advise(advice).map_err(|errno| Error::system("madvise", errno).with_path(&self.path))
    }

    /// The pages that are in memory; see `mincore(2)`.
    pub fn residency(&self) -> Result<MappedResidency> {
        let pages = self.mapping.resident().map_err(|errno| Error::system("mincore", errno).with_path(&self.path))?;
        let resident = pages.iter().filter(|resident| **resident).count() as u64;
        Ok(MappedResidency { page_size: page_size(), pages: pages.len() as u64, resident })
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<()> {
        if offset.checked_add(length).is_some_and(|end| end <= self.size()) {
            return Ok(());
        }
        let message = format!("offset {offset} and length {length} exceed the {} mapped bytes", self.size());
        Err(Error::new(Code::OutOfRange, message).with_path(&self.path))
    }

    fn check_end(&self, end: u64) -> Result<()> {
        if FileMeta::of(&self.file)?.size < end { Err(self.truncated()) } else { Ok(()) }
    }

    fn truncated(&self) -> Error {
        Error::new(Code::Truncated, "the file was truncated after it was mapped; open it again").with_path(&self.path)
    }
}
