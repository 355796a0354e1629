//! The file of a Unix socket: bound without a moment in which others may connect that must not, taken over from a server
//! that is gone, and removed with its own server only.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, OFlag, open};
use nix::sys::socket::{AddressFamily, Backlog, UnixAddr, bind, connect, listen};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};

use super::listener::new_socket;
use super::unix_name::{is_abstract, unix_name};
use crate::error::{Code, Error, Result};
use zerosend_sys::SysResult;

/// How often the lock of a directory is tried, and the time between two attempts.
const LOCK_ATTEMPTS: u32 = 200;
const LOCK_INTERVAL: Duration = Duration::from_millis(1);

/// The file of a Unix socket, removed when this is dropped, unless another file has its path by then.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`. A socket that is there already is replaced when no process listens on it; everything else is
/// `EADDRINUSE`.
///
/// `mode` is the mode of the file; without it, what the umask leaves. The process's umask is not touched, for other threads use
/// it too: the mode is narrowed on the socket before the file exists, and set exactly afterwards.
pub(super) fn listen_at(path: &Path, mode: Option<u32>, backlog: Backlog) -> Result<(OwnedFd, SocketFile)> {
    let failed = |syscall| move |errno| Error::system(syscall, errno).with_path(path);
    let name = unix_name(path)?;
    if is_abstract(path) && mode.is_some() {
        return Err(Error::new(Code::InvalidArgument, "an abstract Unix socket has no mode; leave out socketMode"));
    }
    let mode = mode.map(Mode::from_bits_truncate);
    let fd = new_socket(AddressFamily::Unix).map_err(failed("socket"))?;
    if let Some(mode) = mode {
        // bind(2) gives the file the mode of the socket, less the umask.
        fchmod(&fd, mode).map_err(failed("fchmod"))?;
    }
    // A socket that is bound and does not listen yet looks like one that nothing listens on. The lock keeps others of our kind
    // from seeing it in that state, and from replacing a file that one of them has just replaced.
    let lock = if is_abstract(path) { Lock::Impossible } else { lock_directory(path) };
    match bind(fd.as_raw_fd(), &name) {
        Err(Errno::EADDRINUSE) if !matches!(lock, Lock::Busy) && is_stale(path, &name) => {
            fs::remove_file(path).map_err(|error| failed("unlink")(errno_of(&error)))?;
            bind(fd.as_raw_fd(), &name).map_err(failed("bind"))?;
        }
        result => result.map_err(failed("bind"))?,
    }
    let file = SocketFile { path: path.to_path_buf(), identity: identity(path) };
    if let Some(mode) = mode {
        fchmodat(AT_FDCWD, path, mode, FchmodatFlags::FollowSymlink).map_err(failed("chmod"))?;
    }
    listen(&fd, backlog).map_err(failed("listen"))?;
    Ok((fd, file))
}

/// Whether the file is a socket that no process has open. unix(7): connecting to such a one is `ECONNREFUSED`. A full backlog is
/// `EAGAIN`, a socket of another type `EPROTOTYPE`: both have an owner.
fn is_stale(path: &Path, name: &UnixAddr) -> bool {
    let is_socket = || fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let before = identity(path);
    is_socket() && refuses(name) == Ok(true) && is_socket() && identity(path) == before
}

fn refuses(name: &UnixAddr) -> SysResult<bool> {
    let probe = new_socket(AddressFamily::Unix)?;
    Ok(connect(probe.as_raw_fd(), name) == Err(Errno::ECONNREFUSED))
}

enum Lock {
    /// Held until this is dropped.
    Held(#[expect(dead_code, reason = "dropping it unlocks")] Flock<OwnedFd>),
    /// The directory cannot be locked, for it cannot be read or its file system has no locks.
    Impossible,
    /// Another process holds it.
    Busy,
}

fn lock_directory(path: &Path) -> Lock {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut directory) = open(parent, flags, Mode::empty()) else { return Lock::Impossible };
    for _ in 0..LOCK_ATTEMPTS {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Lock::Held(lock),
            Err((returned, Errno::EWOULDBLOCK | Errno::EINTR)) => directory = returned,
            Err(_) => return Lock::Impossible,
        }
        std::thread::sleep(LOCK_INTERVAL);
    }
    Lock::Busy
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
