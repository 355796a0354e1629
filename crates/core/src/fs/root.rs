//! A directory below which paths are opened.
//!
//! Paths have been checked by [`zerosend_http::path`]: they contain neither `..` nor a second spelling. This module applies the
//! policy for symbolic links, [`Symlinks`], and the permission to block on a file system, [`Access`].
//!
//! A root need not exist yet, and it may be replaced while it is served: a build deletes its output directory, a `current`
//! link moves to the next release, a file system is mounted again. So its directory is opened for each request ([`Visit`]) and
//! not kept open: an open descriptor would refer to the old directory, and prevent its file system from being unmounted.

use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, ResolveFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use super::meta::FileMeta;
use super::mounts::{self, Mount};
use super::open_file::{OPEN_FLAGS, OpenFile};
use crate::error::{Code, Error, Result};
use zerosend_sys::SysResult;
use zerosend_sys::open::{Attributes, RESOLVE_CACHED, openat2, statx};

/// `PATH_MAX`, which counts the NUL at the end.
const MAX_PATH: usize = libc::PATH_MAX as usize;

/// The policy for symbolic links below a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Symlinks {
    /// They are followed anywhere, as in `@fastify/static`.
    #[default]
    Follow,
    /// They are followed below the root. Absolute links count as leaving it, openat2(2).
    Beneath,
    /// Paths with symbolic links are refused.
    Deny,
}

/// Whether a lookup may block on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// It may not: a lookup outside of local file systems ([`mounts`]) and of the kernel's name cache would block.
    CachedOnly,
    /// It may block.
    #[default]
    MayBlock,
}

/// The support of the kernel for `openat2(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpenSupport {
    /// None: before Linux 5.6, or under a seccomp filter. Paths are opened one name at a time, and [`Symlinks::Beneath`] is as
    /// strict as [`Symlinks::Deny`]. [`Access::CachedOnly`] always would block.
    NoOpenat2 = 1,
    /// Without `RESOLVE_CACHED`: before Linux 5.12. [`Access::CachedOnly`] always would block.
    NoCached = 2,
    /// Complete.
    Full = 3,
}

impl OpenSupport {
    /// Probes the kernel, once per process.
    pub fn probe() -> Self {
        static PROBED: AtomicU8 = AtomicU8::new(0);
        match PROBED.load(Ordering::Relaxed) {
            1 => return Self::NoOpenat2,
            2 => return Self::NoCached,
            3 => return Self::Full,
            _ => {}
        }
        // "/" is always cached and O_PATH needs no permission, so an error is about the call itself.
        let probe = |resolve| openat2(AT_FDCWD, c"/", OFlag::O_PATH | OFlag::O_CLOEXEC, resolve).err();
        let support = match probe(RESOLVE_CACHED) {
            None => Self::Full,
            // An unknown flag, openat2(2).
            Some(Errno::EINVAL) => Self::NoCached,
            Some(Errno::ENOSYS | Errno::EPERM | Errno::EACCES) => Self::NoOpenat2,
            // Out of descriptors or memory: probe again next time.
            Some(_) => return Self::Full,
        };
        PROBED.store(support as u8, Ordering::Relaxed);
        support
    }
}

/// The result of a lookup.
#[derive(Debug)]
pub enum Lookup {
    /// A regular file.
    File(OpenFile),
    /// A directory.
    Directory,
    /// A FIFO, socket or device.
    NotRegular,
    /// The name does not exist.
    Missing,
    /// A name before the last is not a directory.
    NotADirectory,
    /// The name is too long for the file system.
    TooLong,
    /// A loop of symbolic links, or a link that the policy forbids.
    Refused,
    /// Permission denied.
    Denied {
        /// The file itself exists and cannot be read; otherwise a directory on the way cannot be searched.
        file_exists: bool,
    },
    /// Not in the kernel's cache: repeat with [`Access::MayBlock`] on a thread that may block.
    WouldBlock,
}

/// A directory below which paths are opened.
#[derive(Debug)]
pub struct Root {
    id: u64,
    path: PathBuf,
    symlinks: Symlinks,
    support: OpenSupport,
}

impl Root {
    /// A root at an absolute path. It need not exist yet; if it does, it must be a directory.
    pub fn new(path: impl Into<PathBuf>, symlinks: Symlinks) -> Result<Self> {
        Self::with_support(path, symlinks, OpenSupport::probe())
    }

    /// Like [`Root::new`], but with less support of the kernel, for tests.
    pub fn with_support(path: impl Into<PathBuf>, symlinks: Symlinks, support: OpenSupport) -> Result<Self> {
        let path = path.into();
        if !path.is_absolute() {
            let message = "root is a relative path: use an absolute path";
            return Err(Error::new(Code::InvalidArgument, message).with_path(path));
        }
        if std::fs::metadata(&path).is_ok_and(|meta| !meta.is_dir()) {
            return Err(Error::new(Code::InvalidArgument, "root is not a directory: use a directory").with_path(path));
        }
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, path, symlinks, support: support.min(OpenSupport::probe()) })
    }

    /// Its path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unique in this process; not reused.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The current metadata of the file at `relative`, from one `statx`; `None` when it cannot be read. May block on the file
    /// system.
    ///
    /// Resolved from the root's path, so that a replaced root is detected. Symbolic links are followed whatever the policy: the
    /// result is compared with the metadata of an earlier [`Root::open`], and the same inode is the same file under any name.
    pub(crate) fn stat(&self, relative: &str) -> Option<FileMeta> {
        FileMeta::at(AT_FDCWD, &CString::new(self.full_path(relative)).ok()?)
    }

    fn full_path(&self, relative: &str) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.path.as_os_str().len() + relative.len() + 2);
        path.extend_from_slice(self.path.as_os_str().as_encoded_bytes());
        path.push(b'/');
        path.extend_from_slice(relative.as_bytes());
        path
    }

    /// Opens `relative` (checked by [`zerosend_http::path`], empty for the root itself).
    pub fn open(&self, relative: &str, access: Access) -> Result<Lookup> {
        Visit::new(self, access).open(relative)
    }

    /// EAGAIN with `MayBlock` means that a rename raced with the path resolution, openat2(2): it is retried a few times.
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
                // Without openat2 this is called for Follow only, which has no resolve flags.
                OpenSupport::NoOpenat2 => openat(&dir, path.as_c_str(), flags, Mode::empty()),
                _ => openat2(&dir, &path, flags, resolve),
            };
            if !matches!(result, Err(Errno::EAGAIN | Errno::EINTR)) {
                break;
            }
        }
        result
    }
}

/// Identifies the directory of a root while that directory exists: inode, device and mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    ino: u64,
    mount: Mount,
}

/// The directory of a root, open.
struct Directory {
    fd: OwnedFd,
    /// `None` where the kernel has no `statx(2)`.
    identity: Option<Identity>,
}

/// The view of a root for one request: the directory is opened once, so that all lookups are in the same one.
pub(crate) struct Visit<'a> {
    root: &'a Root,
    access: Access,
    directory: OnceCell<Directory>,
}

impl<'a> Visit<'a> {
    pub fn new(root: &'a Root, access: Access) -> Self {
        Self { root, access, directory: OnceCell::new() }
    }

    pub fn root(&self) -> &'a Root {
        self.root
    }

    pub fn access(&self) -> Access {
        self.access
    }

    /// See [`Root::open`]. One `openat2` and one `statx`; the first call has another pair for the directory.
    pub fn open(&self, relative: &str) -> Result<Lookup> {
        let fd = match self.open_fd(relative, OPEN_FLAGS) {
            Ok(fd) => fd,
            Err(errno) => return self.classify(errno, relative),
        };
        match OpenFile::of_any_type(fd).map_err(|error| error.with_path(self.root.path.join(relative)))? {
            Ok(file) => Ok(Lookup::File(file)),
            Err(meta) if meta.is_directory() => Ok(Lookup::Directory),
            Err(_) => Ok(Lookup::NotRegular),
        }
    }

    /// The current directory of the root; `None` when it does not exist.
    pub fn identity(&self) -> SysResult<Option<Identity>> {
        match self.directory() {
            Ok(directory) => directory.identity.map(Some).ok_or(Errno::ENOSYS),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn directory(&self) -> SysResult<&Directory> {
        match self.directory.get() {
            Some(directory) => Ok(directory),
            None => {
                let opened = self.open_directory()?;
                Ok(self.directory.get_or_init(|| opened))
            }
        }
    }

    fn open_directory(&self) -> SysResult<Directory> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let path = self.root.path.as_os_str().as_encoded_bytes().to_vec();
        let fd = self.root.open_at(AT_FDCWD, path, flags, ResolveFlag::empty(), self.access)?;
        let stat = statx(&fd, Attributes::Cached).ok();
        let identity = stat.map(|stat| Identity { ino: stat.ino, mount: Mount::from(&stat) });
        match (identity, self.access) {
            (Some(Identity { mount, .. }), Access::CachedOnly) if mounts::known(mount) == Some(true) => {}
            (_, Access::CachedOnly) => return Err(Errno::EAGAIN),
            (Some(Identity { mount, .. }), Access::MayBlock) => {
                // For the next request that may not block.
                mounts::is_local(&fd, mount);
            }
            (None, Access::MayBlock) => {}
        }
        Ok(Directory { fd, identity })
    }

    pub fn open_fd(&self, relative: &str, flags: OFlag) -> SysResult<OwnedFd> {
        let Root { symlinks, support, .. } = *self.root;
        // The limit applies to the whole path, of which the kernel sees only the part below the directory.
        if symlinks == Symlinks::Follow && self.root.path.as_os_str().len() + 1 + relative.len() >= MAX_PATH {
            return Err(Errno::ENAMETOOLONG);
        }
        let directory = &self.directory()?.fd;
        let relative = if relative.is_empty() { "." } else { relative };
        if support == OpenSupport::NoOpenat2 && symlinks != Symlinks::Follow {
            return if self.access == Access::CachedOnly {
                Err(Errno::EAGAIN)
            } else {
                walk(directory, relative, flags)
            };
        }
        let resolve = match symlinks {
            Symlinks::Follow => ResolveFlag::empty(),
            // RESOLVE_NO_SYMLINKS implies RESOLVE_NO_MAGICLINKS, openat2(2).
            Symlinks::Deny => ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH,
            Symlinks::Beneath => ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_BENEATH,
        };
        let open = |flags, resolve| self.root.open_at(directory, relative.into(), flags, resolve, self.access);
        if self.access == Access::MayBlock {
            return open(flags, resolve);
        }
        // The directory is on a local mount. RESOLVE_CACHED covers the names only: opening a file on FUSE calls its daemon, so
        // the resolution must not leave the mount.
        match open(flags, resolve | ResolveFlag::RESOLVE_NO_XDEV) {
            Err(Errno::EXDEV) => {
                // Another mount, or a link that leaves the root. O_PATH does not open the file.
                let probe = open(OFlag::O_PATH | OFlag::O_CLOEXEC, resolve)?;
                let mount = Mount::from(&statx(&probe, Attributes::Cached)?);
                if mounts::known(mount) == Some(true) { open(flags, resolve) } else { Err(Errno::EAGAIN) }
            }
            result => result,
        }
    }

    fn classify(&self, errno: Errno, relative: &str) -> Result<Lookup> {
        let would_block = |errno| errno == Errno::EAGAIN && self.access == Access::CachedOnly;
        Ok(match errno {
            Errno::ENOENT => Lookup::Missing,
            Errno::ENOTDIR => Lookup::NotADirectory,
            Errno::ENAMETOOLONG => Lookup::TooLong,
            Errno::ELOOP | Errno::EXDEV => Lookup::Refused,
            // open(2): a socket, or a device without a driver.
            Errno::ENXIO | Errno::ENODEV => Lookup::NotRegular,
            errno if would_block(errno) => Lookup::WouldBlock,
            Errno::EACCES => {
                // O_PATH needs no permission on the file itself, open(2).
                match self.open_fd(relative, OFlag::O_PATH | OFlag::O_CLOEXEC) {
                    Err(errno) if would_block(errno) => Lookup::WouldBlock,
                    // A directory without read permission is still a directory.
                    Ok(fd) if FileMeta::of(&fd).is_ok_and(|meta| meta.is_directory()) => Lookup::Directory,
                    result => Lookup::Denied { file_exists: result.is_ok() },
                }
            }
            _ => return Err(Error::system("open", errno).with_path(self.root.path.join(relative))),
        })
    }
}

/// Opens `relative` below `directory` one name at a time and refuses every symbolic link: the fallback without `openat2`.
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
            // O_DIRECTORY is checked before O_NOFOLLOW: distinguish a link from a file.
            Err(Errno::ENOTDIR) if readlinkat(at, name).is_ok() => return Err(Errno::ELOOP),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::ENOENT)
}
