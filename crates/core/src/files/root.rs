//! A directory below which paths are opened.
//!
//! Paths come checked ([`crate::http::path`]): no `..` and no second spelling. What is left to decide is symbolic
//! links, [`Symlinks`], and whether the call may wait for a disk, [`Access`].
//!
//! A root need not exist yet, and it may be replaced while it is served (a build that deletes its output directory, a
//! `current` link that moves to the next release). Under [`Symlinks::Follow`] its path is resolved anew for every file.
//! The other policies resolve below a descriptor, since that is what `openat2(2)` confines to; [`Root::refresh`]
//! notices a replaced root after a miss. A replaced root whose old directory still has the file keeps serving it.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, ResolveFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use super::meta::FileMeta;
use super::open_file::{OPEN_FLAGS, OpenFile};
use crate::error::{Code, Error, Result};
use crate::sys::SysResult;
use crate::sys::open::{RESOLVE_CACHED, openat2};

/// What symbolic links below the root may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Symlinks {
    /// Lead anywhere, as `@fastify/static` lets them.
    #[default]
    Follow,
    /// Lead anywhere below the root. Absolute links count as leaving it, openat2(2).
    Beneath,
    /// Not exist on the way.
    Deny,
}

/// Whether an open may wait for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Only names the kernel has in its cache; otherwise the answer is "would block".
    CachedOnly,
    /// Wait.
    #[default]
    MayBlock,
}

/// How much of `openat2(2)` the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpenSupport {
    /// None: before Linux 5.6, or a seccomp filter. [`Symlinks::Beneath`] is as strict as [`Symlinks::Deny`], for names
    /// are walked one by one. [`Access::CachedOnly`] always would block.
    NoOpenat2 = 1,
    /// No `RESOLVE_CACHED`: before Linux 5.12. [`Access::CachedOnly`] always would block.
    NoCached = 2,
    /// All of it.
    Full = 3,
}

impl OpenSupport {
    /// Asks the kernel, once per process.
    pub fn probe() -> Self {
        static PROBED: AtomicU8 = AtomicU8::new(0);
        match PROBED.load(Ordering::Relaxed) {
            1 => return Self::NoOpenat2,
            2 => return Self::NoCached,
            3 => return Self::Full,
            _ => {}
        }
        // "/" is always cached and O_PATH needs no permission on it, so an error is about the call itself.
        let ask = |resolve| openat2(AT_FDCWD, c"/", OFlag::O_PATH | OFlag::O_CLOEXEC, resolve).err();
        let support = match ask(RESOLVE_CACHED) {
            None => Self::Full,
            // Unknown flag, openat2(2).
            Some(Errno::EINVAL) => Self::NoCached,
            Some(Errno::ENOSYS | Errno::EPERM | Errno::EACCES) => Self::NoOpenat2,
            // Out of descriptors or memory: says nothing about the kernel, ask again next time.
            Some(_) => return Self::Full,
        };
        PROBED.store(support as u8, Ordering::Relaxed);
        support
    }
}

/// What was found under a name.
#[derive(Debug)]
pub enum Lookup {
    /// A regular file.
    File(OpenFile),
    /// A directory.
    Directory,
    /// A FIFO, socket or device.
    NotRegular,
    /// Nothing.
    Missing,
    /// A name before the last is no directory.
    NotADirectory,
    /// Nothing can have this name: it is too long for the file system.
    TooLong,
    /// Symbolic links go round in a circle, or the policy forbids one.
    Refused,
    /// Permission denied. `file_exists` tells an unreadable file from an unreadable way to it.
    Denied {
        /// True when the file itself is there.
        file_exists: bool,
    },
    /// Not in the kernel's cache: ask again with [`Access::MayBlock`], off the JavaScript thread.
    WouldBlock,
}

/// Whether the root is still the directory it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// It is.
    Unchanged,
    /// Another directory has its path now; the next open uses it.
    Replaced,
    /// Not in the kernel's cache.
    WouldBlock,
}

/// A directory below which paths are opened.
#[derive(Debug)]
pub struct Root {
    id: u64,
    path: PathBuf,
    symlinks: Symlinks,
    support: OpenSupport,
    /// Held under [`Symlinks::Beneath`] and [`Symlinks::Deny`], once it could be opened.
    directory: Mutex<Option<Arc<OwnedFd>>>,
}

impl Root {
    /// A root at an absolute path, which need not exist yet but must not be something else than a directory.
    pub fn new(path: impl Into<PathBuf>, symlinks: Symlinks) -> Result<Self> {
        Self::with_support(path, symlinks, OpenSupport::probe())
    }

    /// As [`Root::new`] on a kernel with less, to test what then happens.
    pub fn with_support(path: impl Into<PathBuf>, symlinks: Symlinks, support: OpenSupport) -> Result<Self> {
        let path = path.into();
        if !path.is_absolute() {
            let message = "root must be an absolute path: a relative one would move with the working directory";
            return Err(Error::new(Code::InvalidArgument, message).with_path(path));
        }
        if std::fs::metadata(&path).is_ok_and(|meta| !meta.is_dir()) {
            return Err(
                Error::new(Code::InvalidArgument, "root is not a directory; give the directory").with_path(path)
            );
        }
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, path, symlinks, support: support.min(OpenSupport::probe()), directory: Mutex::new(None) })
    }

    /// Its path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names this root, in this process and for ever.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The metadata of what `relative` leads to, in one `statx`; `None` when that cannot be told. Symbolic links are
    /// followed whatever the policy: this is to be compared with what [`Root::open`] found before, and the same inode is
    /// the same file, by whichever name.
    pub(crate) fn stat(&self, relative: &str) -> Option<FileMeta> {
        if self.symlinks == Symlinks::Follow {
            let path = CString::new(self.full_path(relative)).ok()?;
            return FileMeta::at(AT_FDCWD, &path);
        }
        let directory = self.held(Access::MayBlock).ok()?;
        FileMeta::at(&*directory, &CString::new(relative).ok()?)
    }

    fn full_path(&self, relative: &str) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.path.as_os_str().len() + relative.len() + 2);
        path.extend_from_slice(self.path.as_os_str().as_encoded_bytes());
        path.push(b'/');
        path.extend_from_slice(relative.as_bytes());
        path
    }

    /// Opens `relative` (checked by [`crate::http::path`], empty for the root itself): one `openat2` and one `statx`.
    pub fn open(&self, relative: &str, access: Access) -> Result<Lookup> {
        let result = match self.open_fd(relative, OPEN_FLAGS, access) {
            Ok(fd) => fd,
            Err(errno) => return self.classify(errno, relative, access),
        };
        let meta = FileMeta::of(&result).map_err(|error| error.with_path(self.path.join(relative)))?;
        if meta.is_directory() {
            return Ok(Lookup::Directory);
        }
        Ok(OpenFile::with_meta(result, meta).map_or(Lookup::NotRegular, Lookup::File))
    }

    /// After a miss: is the descriptor held still the directory at the path? Under [`Symlinks::Follow`] none is held.
    pub fn refresh(&self, access: Access) -> Result<Refresh> {
        let Some(held) = self.lock().clone() else { return Ok(Refresh::Unchanged) };
        let current = match self.open_directory(access) {
            Ok(fd) => Some(fd),
            Err(Errno::EAGAIN) => return Ok(Refresh::WouldBlock),
            Err(_) => None,
        };
        let identity = |fd: &OwnedFd| FileMeta::of(fd).map(|meta| (meta.dev, meta.ino));
        if let Some(fd) = &current
            && identity(fd)? == identity(&held)?
        {
            return Ok(Refresh::Unchanged);
        }
        *self.lock() = current.map(Arc::new);
        Ok(Refresh::Replaced)
    }

    pub(super) fn open_fd(&self, relative: &str, flags: OFlag, access: Access) -> SysResult<OwnedFd> {
        if self.symlinks == Symlinks::Follow {
            return self.open_at(AT_FDCWD, self.full_path(relative), flags, ResolveFlag::empty(), access);
        }
        let directory = self.held(access)?;
        let relative = if relative.is_empty() { "." } else { relative };
        if self.support == OpenSupport::NoOpenat2 {
            return if access == Access::CachedOnly { Err(Errno::EAGAIN) } else { walk(&directory, relative, flags) };
        }
        let resolve = match self.symlinks {
            // Implies RESOLVE_NO_MAGICLINKS, openat2(2).
            Symlinks::Deny => ResolveFlag::RESOLVE_NO_SYMLINKS,
            _ => ResolveFlag::RESOLVE_NO_MAGICLINKS,
        };
        let resolve = resolve | ResolveFlag::RESOLVE_BENEATH;
        self.open_at(directory.as_fd(), relative.into(), flags, resolve, access)
    }

    /// EAGAIN under `MayBlock` means that a rename raced with the walk, openat2(2): worth a few tries, not for ever.
    fn open_at(
        &self,
        dir: impl AsFd,
        path: Vec<u8>,
        flags: OFlag,
        resolve: ResolveFlag,
        access: Access,
    ) -> SysResult<OwnedFd> {
        const TRIES: usize = 8;
        let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
        if access == Access::CachedOnly {
            return match self.support {
                OpenSupport::Full => openat2(dir, &path, flags, resolve | RESOLVE_CACHED),
                _ => Err(Errno::EAGAIN),
            };
        }
        let mut result = Err(Errno::EAGAIN);
        for _ in 0..TRIES {
            result = match self.support {
                // Only Follow gets here without openat2, and it has no resolve flags.
                OpenSupport::NoOpenat2 => openat(&dir, path.as_c_str(), flags, Mode::empty()),
                _ => openat2(&dir, &path, flags, resolve),
            };
            if !matches!(result, Err(Errno::EAGAIN | Errno::EINTR)) {
                break;
            }
        }
        result
    }

    fn open_directory(&self, access: Access) -> SysResult<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        self.open_at(AT_FDCWD, self.path.as_os_str().as_encoded_bytes().to_vec(), flags, ResolveFlag::empty(), access)
    }

    fn held(&self, access: Access) -> SysResult<Arc<OwnedFd>> {
        if let Some(held) = &*self.lock() {
            return Ok(Arc::clone(held));
        }
        // Opened without the lock, so that a slow disk holds up nobody else.
        let opened = Arc::new(self.open_directory(access)?);
        Ok(Arc::clone(self.lock().get_or_insert(opened)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<OwnedFd>>> {
        // An Option that is only ever replaced is whole even after a panic elsewhere.
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn classify(&self, errno: Errno, relative: &str, access: Access) -> Result<Lookup> {
        Ok(match errno {
            Errno::ENOENT => Lookup::Missing,
            Errno::ENOTDIR => Lookup::NotADirectory,
            Errno::ENAMETOOLONG => Lookup::TooLong,
            Errno::ELOOP | Errno::EXDEV => Lookup::Refused,
            // open(2): a socket, or a device without a driver.
            Errno::ENXIO | Errno::ENODEV => Lookup::NotRegular,
            Errno::EAGAIN if access == Access::CachedOnly => Lookup::WouldBlock,
            Errno::EACCES => {
                // O_PATH needs no permission on the file itself, open(2).
                match self.open_fd(relative, OFlag::O_PATH | OFlag::O_CLOEXEC, access) {
                    Err(Errno::EAGAIN) if access == Access::CachedOnly => Lookup::WouldBlock,
                    // A directory one may pass but not list is a directory all the same.
                    Ok(fd) if FileMeta::of(&fd).is_ok_and(|meta| meta.is_directory()) => Lookup::Directory,
                    result => Lookup::Denied { file_exists: result.is_ok() },
                }
            }
            _ => return Err(Error::system("open", errno).with_path(self.path.join(relative))),
        })
    }
}

/// Opens `relative` below `directory` name by name, refusing every symbolic link: what is left without `openat2`.
fn walk(directory: &OwnedFd, relative: &str, flags: OFlag) -> SysResult<OwnedFd> {
    let step = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut parent: Option<OwnedFd> = None;
    let mut names = relative.split('/').peekable();
    while let Some(name) = names.next() {
        let at = parent.as_ref().unwrap_or(directory);
        if names.peek().is_none() {
            let fd = openat(at, name, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
            return Ok(fd);
        }
        match openat(at, name, step, Mode::empty()) {
            Ok(next) => parent = Some(next),
            // O_DIRECTORY is judged before O_NOFOLLOW is: tell a link from a file.
            Err(Errno::ENOTDIR) if readlinkat(at, name).is_ok() => return Err(Errno::ELOOP),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::ENOENT)
}
