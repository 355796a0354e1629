//! `futex(2)`: sleeping on a word of memory that several processes share.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use nix::errno::Errno;

use crate::SysResult;

/// Sleeps while `word` is `expected`, at most for `timeout`; see `FUTEX_WAIT`. May return early without a reason. `EAGAIN`:
/// the word has another value; `ETIMEDOUT`; `EINTR`.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Duration) -> SysResult<()> {
    let timeout = libc::timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos() as _ };
    // Without FUTEX_PRIVATE_FLAG: other processes wake the sleeper.
    // SAFETY: the kernel reads the word, atomically, and the timeout. Both are live during the call: they are borrowed, and the
    // timeout is a local.
    let result =
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &raw const timeout) };
    Errno::result(result).map(drop)
}

/// Wakes all that sleep on `word`, in any process; see `FUTEX_WAKE`.
pub fn wake(word: &AtomicU32) -> SysResult<()> {
    // SAFETY: the kernel uses the address of the word to find sleepers, and does not access the word itself.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
    Errno::result(result).map(drop)
}
