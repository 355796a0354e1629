//! Non-blocking use of a descriptor whose open file description may be shared.
//!
//! `O_NONBLOCK` belongs to the open file description (open(2)), which other descriptors, transfers and processes may
//! share. So a pipe or terminal in blocking mode is opened a second time through `/proc/self/fd`, which makes another open
//! file description (proc(5)). Where that is impossible (a socket; no procfs; no permission), the mode is changed, and
//! restored when the last user in this process ends.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::error::{Error, Result};
use zerosend_sys as sys;
use zerosend_sys::io::Target;

/// Device and inode. Each socket has another one; all open file descriptions of a pipe or device have the same.
type Inode = (u64, u64);

/// Changed modes that are in use, by inode.
static CHANGED: Mutex<Option<HashMap<Inode, Changed>>> = Mutex::new(None);

#[derive(Default)]
struct Changed {
    users: usize,
    /// A duplicate of each descriptor whose mode was changed, and its flags before.
    restore: Vec<(OwnedFd, OFlag)>,
}

/// An owned descriptor in non-blocking mode.
pub struct NonBlocking {
    fd: OwnedFd,
    kind: SFlag,
    /// Set when the mode of a shared open file description is relied on.
    #[allow(dead_code, reason = "dropped after the descriptor, to restore the mode")]
    shared: Option<SharedMode>,
}

impl NonBlocking {
    /// Takes a descriptor, usually a duplicate.
    pub fn new(fd: OwnedFd) -> Result<Self> {
        let stat = fstat(&fd).map_err(|errno| Error::system("fstat", errno))?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFREG {
            return Ok(Self { fd, kind, shared: None });
        }
        match reopen(fd.as_fd(), kind) {
            Some(own) => Ok(Self { fd: own, kind, shared: None }),
            None => {
                let shared = SharedMode::acquire(fd.as_fd(), &stat)?;
                Ok(Self { fd, kind, shared })
            }
        }
    }

    /// Takes a socket that is not shared and in non-blocking mode already. Makes no system call.
    pub fn socket(fd: OwnedFd) -> Self {
        Self { fd, kind: SFlag::S_IFSOCK, shared: None }
    }

    /// The kind of descriptor, for writing.
    pub fn target(&self) -> Target {
        if self.is_socket() { Target::Socket } else { Target::Fd }
    }

    /// True for a socket.
    pub fn is_socket(&self) -> bool {
        self.kind == SFlag::S_IFSOCK
    }

    /// True for a regular file.
    pub fn is_regular_file(&self) -> bool {
        self.kind == SFlag::S_IFREG
    }

    /// True for what epoll supports. Regular files are always ready, and writing to them may wait for a disk.
    pub fn is_pollable(&self) -> bool {
        self.kind == SFlag::S_IFSOCK || self.kind == SFlag::S_IFIFO || self.kind == SFlag::S_IFCHR
    }
}

impl AsFd for NonBlocking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes a second open file description of a pipe or terminal. `None`: the descriptor is of another kind, or it failed.
fn reopen(fd: BorrowedFd<'_>, kind: SFlag) -> Option<OwnedFd> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).ok()?);
    // Opening another kind of device may have effects. Opening the master of a pseudo-terminal makes a new terminal.
    let terminal = kind == SFlag::S_IFCHR && sys::terminal::is_terminal(fd) && !sys::terminal::is_pty_master(fd);
    if kind != SFlag::S_IFIFO && !terminal {
        return None;
    }
    let flags = (flags & OFlag::O_ACCMODE) | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    open(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str(), flags, Mode::empty()).ok()
}

/// Keeps an open file description in non-blocking mode until the last of these is dropped.
pub(crate) struct SharedMode(Inode);

impl SharedMode {
    /// `None`: its owner has set non-blocking mode.
    pub fn acquire(fd: BorrowedFd<'_>, stat: &FileStat) -> Result<Option<Self>> {
        let failed = |errno| Error::system("fcntl", errno);
        let inode = (stat.st_dev, stat.st_ino);
        let mut table = lock();
        let changed = table.get_or_insert_with(HashMap::new);
        // Read under the lock, so that a mode set here is not taken for the owner's.
        let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).map_err(failed)?);
        if flags.contains(OFlag::O_NONBLOCK) {
            return Ok(changed.get_mut(&inode).map(|entry| {
                entry.users += 1;
                Self(inode)
            }));
        }
        let duplicate = fd.try_clone_to_owned().map_err(|error| Error::system("dup", sys::errno_of(&error)))?;
        fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(failed)?;
        let entry = changed.entry(inode).or_default();
        entry.users += 1;
        entry.restore.push((duplicate, flags));
        Ok(Some(Self(inode)))
    }
}

impl Drop for SharedMode {
    fn drop(&mut self) {
        let mut table = lock();
        let Some(changed) = table.as_mut() else { return };
        let Some(entry) = changed.get_mut(&self.0) else { return };
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        if let Some(entry) = changed.remove(&self.0) {
            for (fd, flags) in entry.restore {
                let _ = fcntl(&fd, FcntlArg::F_SETFL(flags));
            }
        }
    }
}

fn lock() -> MutexGuard<'static, Option<HashMap<Inode, Changed>>> {
    CHANGED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn is_non_blocking(fd: impl AsFd) -> bool {
        OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).expect("flags")).contains(OFlag::O_NONBLOCK)
    }

    fn duplicate(fd: &impl AsFd) -> OwnedFd {
        fd.as_fd().try_clone_to_owned().expect("a descriptor")
    }

    #[test]
    fn a_blocking_pipe_keeps_its_mode() {
        let (read, write) = nix::unistd::pipe().expect("a pipe");
        let first = NonBlocking::new(duplicate(&write)).expect("usable");
        let second = NonBlocking::new(duplicate(&write)).expect("usable");
        let source = NonBlocking::new(duplicate(&read)).expect("usable");
        assert!(!is_non_blocking(&write) && !is_non_blocking(&read));
        drop(first);
        assert!(is_non_blocking(&second) && is_non_blocking(&source));
        nix::unistd::write(&second, b"x").expect("room");
        let mut byte = [0];
        assert_eq!(nix::unistd::read(&source, &mut byte), Ok(1));
        assert_eq!(nix::unistd::read(&source, &mut byte), Err(nix::errno::Errno::EAGAIN));
    }

    #[test]
    fn the_last_user_restores_the_mode_of_a_blocking_socket() {
        let (socket, _other) = UnixStream::pair().expect("a pair");
        let first = NonBlocking::new(duplicate(&socket)).expect("usable");
        let second = NonBlocking::new(duplicate(&socket)).expect("usable");
        drop(first);
        assert!(is_non_blocking(&socket), "the second user is left");
        drop(second);
        assert!(!is_non_blocking(&socket));
        socket.set_nonblocking(true).expect("a mode");
        drop(NonBlocking::new(duplicate(&socket)).expect("usable"));
        assert!(is_non_blocking(&socket), "the mode set by the owner");
    }
}
