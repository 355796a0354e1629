//! [`MappedFile`]: a file as memory, without the signal.
//!
//! Nobody in user space reads or writes the mapped pages. Bytes are copied by the kernel, `process_vm_readv(2)` and
//! `process_vm_writev(2)` on this very process, for which a page that a truncated file no longer has is `EFAULT` and not
//! `SIGBUS`. Where a sandbox forbids those calls, `pread(2)` and `pwrite(2)` do for modes that share the page cache.

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

/// How a file is mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapOptions {
    /// Who sees what is written.
    pub mode: MapMode,
    /// Bytes from the beginning of the file. Default: all. With [`MapMode::Shared`] a file that is shorter, or not there,
    /// is made so long.
    pub length: Option<u64>,
    /// Bring all of it into memory now; see `mmap(2)`, `MAP_POPULATE`.
    pub populate: bool,
}

/// How much of a mapping is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedResidency {
    /// Bytes of a page.
    pub page_size: u64,
    /// Pages of the mapping.
    pub pages: u64,
    /// How many of them are in memory.
    pub resident: u64,
}

/// A file as memory.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: OwnedFd,
    region: Mapping,
    mode: MapMode,
}

impl MappedFile {
    /// Opens and maps. May wait for a disk. [`Code::OutOfRange`] for a length beyond the file, [`Code::InvalidArgument`]
    /// for an empty file, [`Code::NotRegularFile`], and the errors of `open(2)`, `ftruncate(2)` and `mmap(2)`.
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
            let message = "nothing cannot be mapped: the file is empty; give a length with the mode 'shared'";
            return Err(Error::new(Code::InvalidArgument, message).with_path(path));
        }
        if length > meta.size {
            if options.mode != MapMode::Shared {
                let message = format!("length is {length}, but the file has {} bytes", meta.size);
                return Err(Error::new(Code::OutOfRange, message).with_path(path));
            }
            let length = i64::try_from(length).map_err(|_| failed("ftruncate")(Errno::EFBIG))?;
            ftruncate(&file, length).map_err(failed("ftruncate"))?;
        }
        let size = usize::try_from(length).map_err(|_| failed("mmap")(Errno::ENOMEM))?;
        let region = Mapping::new(&file, 0, size, options.mode, options.populate).map_err(failed("mmap"))?;
        Ok(Self { path: path.to_owned(), file, region, mode: options.mode })
    }

    /// The file system it is on.
    pub fn volume(&self) -> Volume {
        Volume::of(&self.file)
    }

    /// Bytes mapped.
    pub fn size(&self) -> u64 {
        self.region.len() as u64
    }

    /// As it was opened.
    pub fn mode(&self) -> MapMode {
        self.mode
    }

    /// Copies `length` bytes from `offset` on. [`Code::OutOfRange`] beyond the mapping, [`Code::Truncated`] where the file
    /// has no bytes any more.
    pub fn read_at(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.check_range(offset, length)?;
        let mut bytes = vec![0; length as usize];
        let read = read_full(&mut bytes, |rest, filled| {
            let at = offset as usize + filled;
            match self.region.read(at, rest) {
                Err(Errno::ENOSYS | Errno::EPERM) if self.mode != MapMode::Private => {
                    pread(&self.file, rest, at as i64)
                }
                // A page that could not be mapped was not written to, so the file has its bytes, or says why not. No more than
                // that page: those after it may be private copies.
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
        // The last page of a truncated file is there as a whole, with zeros where the file has ended.
        self.check_end(offset + length)?;
        Ok(bytes)
    }

    /// Writes `bytes` from `offset` on. [`Code::InvalidArgument`] in a mapping that is only read; otherwise as
    /// [`MappedFile::read_at`].
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.mode == MapMode::Read {
            let message = "the file is mapped with the mode 'read'; open it with 'private' or 'shared' to write";
            return Err(Error::new(Code::InvalidArgument, message).with_path(&self.path));
        }
        self.check_range(offset, bytes.len() as u64)?;
        self.check_end(offset + bytes.len() as u64)?;
        let mut done = 0;
        while done < bytes.len() {
            let at = offset as usize + done;
            let written = match self.region.write(at, &bytes[done..]) {
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

    /// Writes where a page of the mapping cannot be had: `EFAULT` there stands for a truncated file, a full file system and a
    /// failing disk alike, and the call on the file says which.
    fn write_unmapped(&self, at: usize, bytes: &[u8]) -> std::result::Result<usize, Errno> {
        if FileMeta::of(&self.file).is_ok_and(|meta| meta.size <= at as u64) {
            return Ok(0);
        }
        if self.mode == MapMode::Shared {
            return pwrite(&self.file, bytes, at as i64);
        }
        // The private copy is made from a page of the file, for which there may be no memory.
        match pread(&self.file, &mut [0], at as i64) {
            Ok(_) => Err(Errno::ENOSPC),
            Err(errno) => Err(errno),
        }
    }

    /// Writes what was written to the disk: waits for it, or (`wait` false) only begins; see `msync(2)`. Nothing to do for
    /// mappings that are not [`MapMode::Shared`].
    pub fn flush(&self, wait: bool) -> Result<()> {
        if self.mode != MapMode::Shared {
            return Ok(());
        }
        self.region.sync(wait).map_err(|errno| Error::system("msync", errno).with_path(&self.path))
    }

    /// Says how it will be used; see `madvise(2)`. Advice that the kernel or the filesystem does not know is an error.
    pub fn advise(&self, advice: Advice) -> Result<()> {
        self.region.advise(advice).map_err(|errno| Error::system("madvise", errno).with_path(&self.path))
    }

    /// How much of it is in memory; see `mincore(2)`.
    pub fn residency(&self) -> Result<MappedResidency> {
        let pages = self.region.resident().map_err(|errno| Error::system("mincore", errno).with_path(&self.path))?;
        let resident = pages.iter().filter(|resident| **resident).count() as u64;
        Ok(MappedResidency { page_size: page_size(), pages: pages.len() as u64, resident })
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<()> {
        if offset.checked_add(length).is_some_and(|end| end <= self.size()) {
            return Ok(());
        }
        let message = format!("offset {offset} and length {length} reach beyond the {} bytes mapped", self.size());
        Err(Error::new(Code::OutOfRange, message).with_path(&self.path))
    }

    fn check_end(&self, end: u64) -> Result<()> {
        if FileMeta::of(&self.file)?.size < end { Err(self.truncated()) } else { Ok(()) }
    }

    fn truncated(&self) -> Error {
        Error::new(Code::Truncated, "the file is shorter now than it was when it was mapped; open it again")
            .with_path(&self.path)
    }
}
