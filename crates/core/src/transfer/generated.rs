//! Files that the kernel makes up as they are read (`/proc`, `/sys`, `/sys/kernel/debug`): their size says 0, or a page.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::statfs::{
    CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, fstatfs,
};

use crate::error::{Code, Error, Result};
use crate::sys::residency::page_size;

/// The largest such file that is taken, in bytes.
const MAX: usize = 16 * 1024 * 1024;

const MADE_UP: [FsType; 5] = [PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC];

/// The bytes of a file whose `size` means nothing, as they are now; `None` for every ordinary file.
///
/// [`Code::Limit`] for one beyond 16 MiB.
pub fn snapshot(file: impl AsFd, size: u64) -> Result<Option<Vec<u8>>> {
    // Two system calls less for nearly every file.
    if size != 0 && size != page_size() {
        return Ok(None);
    }
    let file = file.as_fd();
    let made_up = fstatfs(file).is_ok_and(|filesystem| MADE_UP.contains(&filesystem.filesystem_type()));
    if made_up { read_to_end(file).map(Some) } else { Ok(None) }
}

fn read_to_end(file: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 64 * 1024];
    let mut filled = 0;
    loop {
        if filled == bytes.len() {
            if filled >= MAX {
                return Err(Error::new(Code::Limit, "the file has no size, and more than 16 MiB came out of it"));
            }
            bytes.resize(filled * 2, 0);
        }
        match nix::sys::uio::pread(file, &mut bytes[filled..], filled as i64) {
            Ok(0) => {
                bytes.truncate(filled);
                return Ok(bytes);
            }
            Ok(count) => filled += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("pread", errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn procfs_has_bytes_where_its_size_says_none() {
        let file = File::open("/proc/self/status").expect("procfs");
        let size = file.metadata().expect("metadata").len();
        let bytes = snapshot(&file, size).expect("readable").expect("made up");
        assert!(bytes.starts_with(b"Name:"));
        let empty = tempfile::tempfile().expect("a file");
        assert_eq!(snapshot(&empty, 0), Ok(None));
    }
}
