//! A segment of shared memory: with a name (`shm_open(3)`), or without one and with seals (`memfd_create(2)`).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{shm_open, shm_unlink};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::ftruncate;

use crate::error::{Code, Error, Result};

/// The name of a segment, a file in `/dev/shm`; see `shm_overview(7)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentName(String);

impl SegmentName {
    /// Checks a name, with or without the slash at its beginning. [`Code::InvalidArgument`].
    pub fn new(name: &str) -> Result<Self> {
        let bare = name.strip_prefix('/').unwrap_or(name);
        if bare.is_empty() || bare.len() > 250 || bare == "." || bare == ".." || bare.contains(['/', '\0']) {
            let message = format!("invalid name '{name}': use 1 to 250 bytes without '/' and NUL");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        Ok(Self(format!("/{bare}")))
    }

    /// The name with the slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Operations that a segment without a name no longer allows, to any process; see `fcntl(2)`, `F_ADD_SEALS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seals {
    /// Make it smaller (`F_SEAL_SHRINK`).
    pub shrink: bool,
    /// Make it larger (`F_SEAL_GROW`).
    pub grow: bool,
    /// Write to it (`F_SEAL_WRITE`). `EBUSY` while it has a writable shared mapping.
    pub write: bool,
}

/// Removes a name; false when it does not exist. The memory is freed when the last process closes it; see `shm_unlink(3)`.
pub fn unlink(name: &SegmentName) -> Result<bool> {
    match shm_unlink(name.as_str()) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(Error::system("shm_unlink", errno).with_path(name.as_str())),
    }
}

/// An open segment. It is the only user of its open file description, so that it does not share locks.
#[derive(Debug)]
pub(super) struct Segment {
    file: OwnedFd,
    name: Option<SegmentName>,
}

impl Segment {
    /// Creates a segment of `size` zero bytes. `mode` are its permissions, as for `chmod(2)`. `EEXIST`: the name is in use.
    pub fn create(name: Option<&SegmentName>, size: u64, mode: u32) -> Result<Self> {
        let failed = |syscall, errno: Errno| {
            let error = Error::system(syscall, errno);
            if let Some(name) = name { error.with_path(name.as_str()) } else { error }
        };
        let size = i64::try_from(size).map_err(|_| failed("ftruncate", Errno::EFBIG))?;
        let mode = Mode::from_bits_truncate(mode & 0o777);
        let file = match name {
            Some(name) => {
                let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                shm_open(name.as_str(), flags, Mode::from_bits_truncate(0o600))
                    .map_err(|errno| failed("shm_open", errno))?
            }
            None => memfd_create(c"zerosend", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
                .map_err(|errno| failed("memfd_create", errno))?,
        };
        let segment = Self { file, name: name.cloned() };
        // By `fchmod`, because the umask would remove bits from the mode of `shm_open`.
        let prepared = fchmod(&segment.file, mode)
            .map_err(|errno| failed("fchmod", errno))
            .and_then(|()| ftruncate(&segment.file, size).map_err(|errno| failed("ftruncate", errno)));
        if prepared.is_err()
            && let Some(name) = name
        {
            let _ = unlink(name);
        }
        prepared.map(|()| segment)
    }

    /// Opens the segment with this name.
    pub fn open(name: &SegmentName) -> Result<Self> {
        let file = shm_open(name.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| Error::system("shm_open", errno).with_path(name.as_str()))?;
        Ok(Self { file, name: Some(name.clone()) })
    }

    /// Opens the segment behind a descriptor again, which gives it a separate open file description.
    pub fn from_fd(fd: BorrowedFd<'_>) -> Result<Self> {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let file = File::options().read(true).write(true).open(Path::new(&path)).map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            // ENOENT: no descriptor has this number.
            Error::system("open", if errno == Errno::ENOENT { Errno::EBADF } else { errno })
        })?;
        let kind = fstat(&file).map_err(|errno| Error::system("fstat", errno))?.st_mode & libc::S_IFMT;
        if kind != libc::S_IFREG {
            return Err(Error::new(Code::InvalidArgument, "invalid descriptor: it does not refer to shared memory"));
        }
        Ok(Self { file: file.into(), name: None })
    }

    /// Current size in bytes.
    pub fn size(&self) -> Result<u64> {
        Ok(fstat(&self.file).map_err(|errno| Error::system("fstat", errno))?.st_size as u64)
    }

    /// Allocates memory for all of it, because access to a page that cannot be allocated is `SIGBUS`. `ENOSPC`.
    pub fn reserve(&self) -> Result<()> {
        let size = self.size()? as i64;
        fallocate(&self.file, FallocateFlags::empty(), 0, size).map_err(|errno| self.failed("fallocate", errno))
    }

    /// Device and inode, which identify the segment.
    pub fn key(&self) -> Option<(u64, u64)> {
        fstat(&self.file).ok().map(|stat| (stat.st_dev, stat.st_ino))
    }

    /// Whether no process can make it smaller; see `fcntl(2)`, `F_SEAL_SHRINK`.
    pub fn cannot_shrink(&self) -> bool {
        fcntl(&self.file, FcntlArg::F_GET_SEALS)
            .is_ok_and(|seals| SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK))
    }

    /// Adds seals. [`Code::Unsupported`] for a segment with a name.
    pub fn seal(&self, seals: Seals) -> Result<()> {
        let mut flags = SealFlag::empty();
        flags.set(SealFlag::F_SEAL_SHRINK, seals.shrink);
        flags.set(SealFlag::F_SEAL_GROW, seals.grow);
        flags.set(SealFlag::F_SEAL_WRITE, seals.write);
        match fcntl(&self.file, FcntlArg::F_ADD_SEALS(flags)) {
            Ok(_) => Ok(()),
            Err(Errno::EPERM) if self.name.is_some() => {
                Err(Error::new(Code::Unsupported, "memory with a name cannot be sealed; create it without a name"))
            }
            Err(errno) => Err(self.failed("fcntl", errno)),
        }
    }

    pub fn name(&self) -> Option<&SegmentName> {
        self.name.as_ref()
    }

    /// The error of a system call on the segment.
    pub fn failed(&self, syscall: &'static str, errno: Errno) -> Error {
        let error = Error::system(syscall, errno);
        match &self.name {
            Some(name) => error.with_path(name.as_str()),
            None => error,
        }
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
