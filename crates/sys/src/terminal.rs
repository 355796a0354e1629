//! The kind of terminal that a descriptor refers to; see `ioctl_tty(2)`.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether the descriptor is a terminal; see `isatty(3)`.
pub fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    nix::unistd::isatty(fd).unwrap_or(false)
}

/// Whether the descriptor is the master side of a pseudo-terminal; see `TIOCGPTN`.
pub fn is_pty_master(fd: BorrowedFd<'_>) -> bool {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one `unsigned int`, and `number` is a live `c_uint`. A descriptor of another kind is ENOTTY.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGPTN, &raw mut number) == 0 }
}
