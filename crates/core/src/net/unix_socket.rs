//! Listening on a path: sets the mode of the socket file before anyone can connect, replaces the stale file of a server that has
//! exited, and removes the file at the end unless another server has replaced it.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, OFlag, open};
use nix::sys::socket::{AddressFamily, Backlog, UnixAddr, bind, connect, listen};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};

use super::socket::new_socket;
use super::unix_name::{is_abstract, unix_name};
use crate::error::{Code, Error, Result};
use zerosend_sys::SysResult;

/// Attempts to lock the directory, and the time between them.
const LOCK_ATTEMPTS: u32 = 200;
const LOCK_INTERVAL: Duration = Duration::from_millis(1);

/// Removes the socket file when it is dropped, unless the path names another file by then.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on `path`. Replaces an existing socket that no process listens on; any other file is `EADDRINUSE`.
///
/// `mode` is the mode of the file; by default, as set by the umask. The umask of the process is not changed, because other
/// threads use it: the mode is set on the socket, which restricts the file that bind(2) creates, and then on the file.
pub(super) fn listen_at(path: &Path, mode: Option<u32>, backlog: Backlog) -> Result<(OwnedFd, SocketFile)> {
    let failed = |syscall| move |errno| Error::system(syscall, errno).with_path(path);
    let name = unix_name(path)?;
    if is_abstract(path) && mode.is_some() {
        return Err(Error::new(
            Code::InvalidArgument,
            "`socketMode` does not apply to an abstract Unix socket; omit it",
        ));
    }
    let mode = mode.map(Mode::from_bits_truncate);
    let fd = new_socket(AddressFamily::Unix).map_err(failed("socket"))?;
    if let Some(mode) = mode {
        // bind(2) creates the file with the mode of the socket, minus the umask.
        fchmod(&fd, mode).map_err(failed("fchmod"))?;
    }
    // Between bind and listen the socket looks stale. The lock keeps other zerosend servers from replacing it in that state, and
    // two of them from replacing the same stale file.
    let lock = if is_abstract(path) { Lock::Unsupported } else { lock_directory(path) };
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

/// Whether the file is a socket that no process has open: connecting fails with `ECONNREFUSED`. A full backlog gives `EAGAIN` and a
/// socket of another type `EPROTOTYPE`, so a process has those open; see unix(7).
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
    /// Released on drop.
    Held(#[expect(dead_code, reason = "dropping it unlocks")] Flock<OwnedFd>),
    /// The directory cannot be opened, or its file system has no locks.
    Unsupported,
    /// Another process holds the lock.
    Busy,
}

fn lock_directory(path: &Path) -> Lock {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut directory) = open(parent, flags, Mode::empty()) else { return Lock::Unsupported };
    for _ in 0..LOCK_ATTEMPTS {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Lock::Held(lock),
            Err((returned, Errno::EWOULDBLOCK | Errno::EINTR)) => directory = returned,
            Err(_) => return Lock::Unsupported,
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
