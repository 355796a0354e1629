//! Files whose bytes are made as they are read, so that their size says nothing: 0 in procfs, securityfs, cgroup v1 and on FUSE
//! with direct I/O, a page in sysfs. They are recognized by a look and not by their file system, whose list would never be
//! complete.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::root::Access;
use crate::error::{Code, Error, Result};
use zerosend_sys::io::pread_resident;
use zerosend_sys::page::page_size;

/// The largest such file that is taken, in bytes.
const MAX: usize = 16 * 1024 * 1024;

/// What a look at a file found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It has as many bytes as its size says.
    Ordinary,
    /// Its size is wrong. All of its bytes, as they are now.
    Generated(Vec<u8>),
    /// Look where waiting is allowed.
    WouldBlock,
}

/// Looks at a file of the given `size`; one pread(2) for a size of 0 or of a page, nothing for all others. [`Code::Limit`] for
/// a generated file beyond 16 MiB.
pub(crate) fn look(file: impl AsFd, size: u64, access: Access) -> Result<Look> {
    if size != 0 && size != page_size() {
        return Ok(Look::Ordinary);
    }
    let file = file.as_fd();
    let last = size.saturating_sub(1);
    let found = loop {
        let mut byte = [0];
        let read = match access {
            Access::CachedOnly => pread_resident(file, &mut byte, last),
            Access::MayBlock => nix::sys::uio::pread(file, &mut byte, last as i64),
        };
        match read {
            Ok(count) => break count,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) if access == Access::CachedOnly => {
                return Ok(Look::WouldBlock);
            }
            // Opened with O_NONBLOCK, and there is nothing to be read.
            Err(Errno::EAGAIN) => return Ok(Look::Ordinary),
            Err(errno) => return Err(Error::system("pread", errno)),
        }
    };
    if (found == 0) == (size == 0) {
        return Ok(Look::Ordinary);
    }
    if access == Access::CachedOnly { Ok(Look::WouldBlock) } else { read_to_end(file).map(Look::Generated) }
}

/// The bytes of a file whose `size` says nothing, as they are now; `None` for every ordinary file. May wait.
///
/// [`Code::Limit`] for one beyond 16 MiB.
pub fn generated_bytes(file: impl AsFd, size: u64) -> Result<Option<Vec<u8>>> {
    match look(file, size, Access::MayBlock)? {
        Look::Generated(bytes) => Ok(Some(bytes)),
        Look::Ordinary | Look::WouldBlock => Ok(None),
    }
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
            Ok(0) | Err(Errno::EAGAIN) => {
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
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_size_that_says_nothing_is_looked_behind() {
        let file = File::open("/proc/self/status").expect("procfs");
        let bytes = generated_bytes(&file, 0).expect("readable").expect("generated");
        assert!(bytes.starts_with(b"Name:"));
        if let Ok(file) = File::open("/sys/kernel/mm/transparent_hugepage/enabled") {
            let bytes = generated_bytes(&file, page_size()).expect("readable").expect("generated");
            assert!(!bytes.is_empty() && (bytes.len() as u64) < page_size());
        }
        let file = tempfile::tempfile().expect("a file");
        assert_eq!(generated_bytes(&file, 0), Ok(None));
        file.write_all_at(b"x", page_size() - 1).expect("room");
        assert_eq!(generated_bytes(&file, page_size()), Ok(None));
    }
}
