//! Files whose bytes the kernel generates during the read, so that their size is wrong: 0 in procfs, securityfs, cgroup v1 and on
//! FUSE with direct I/O, one page in sysfs. They are detected by a read, because a list of their file systems would never be
//! complete.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::uio::pread;

use super::root::Access;
use crate::error::{Code, Error, Result};
use crate::io::read_full::{read_full, read_full_at};
use zerosend_sys::page::page_size;
use zerosend_sys::residency::pread_resident;

/// The largest pseudo file that is served, in bytes.
const MAX: usize = 16 * 1024 * 1024;

/// The result of [`inspect`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inspection {
    /// The size is right.
    Regular,
    /// The size is wrong. All current bytes.
    Pseudo(Vec<u8>),
    /// The read would block.
    WouldBlock,
}

/// Compares a file with its `size`: with one `pread(2)` for a size of 0 or of a page, without a call for all others.
/// [`Code::Limit`] for a pseudo file over 16 MiB.
pub(crate) fn inspect(file: impl AsFd, size: u64, access: Access) -> Result<Inspection> {
    if size != 0 && size != page_size() {
        return Ok(Inspection::Regular);
    }
    let file = file.as_fd();
    let last = size.saturating_sub(1);
    let read = match access {
        Access::CachedOnly => read_full(&mut [0], |byte, _| pread_resident(file, byte, last)),
        Access::MayBlock => read_full_at(file, last, &mut [0]),
    };
    let count = match read {
        Ok(count) => count,
        Err(Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) if access == Access::CachedOnly => {
            return Ok(Inspection::WouldBlock);
        }
        // The file was opened with O_NONBLOCK and has no data at the moment.
        Err(Errno::EAGAIN) => return Ok(Inspection::Regular),
        Err(errno) => return Err(Error::system("pread", errno)),
    };
    if (count == 0) == (size == 0) {
        return Ok(Inspection::Regular);
    }
    if access == Access::CachedOnly { Ok(Inspection::WouldBlock) } else { read_to_end(file).map(Inspection::Pseudo) }
}

/// The current bytes of a pseudo file; `None` for a regular file. May block.
///
/// [`Code::Limit`] for a pseudo file over 16 MiB.
pub fn pseudo_file_bytes(file: impl AsFd, size: u64) -> Result<Option<Vec<u8>>> {
    match inspect(file, size, Access::MayBlock)? {
        Inspection::Pseudo(bytes) => Ok(Some(bytes)),
        Inspection::Regular | Inspection::WouldBlock => Ok(None),
    }
}

fn read_to_end(file: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 64 * 1024];
    let mut filled = 0;
    loop {
        let read = read_full(&mut bytes[filled..], |rest, count| match pread(file, rest, (filled + count) as i64) {
            // Opened with O_NONBLOCK: there is no more data.
            Err(Errno::EAGAIN) => Ok(0),
            result => result,
        });
        filled += read.map_err(|errno| Error::system("pread", errno))?;
        if filled < bytes.len() {
            bytes.truncate(filled);
            return Ok(bytes);
        }
        if filled >= MAX {
            return Err(Error::new(Code::Limit, "the file reports no size and is larger than 16 MiB; use a pipe"));
        }
        bytes.resize(filled * 2, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_file_with_a_wrong_size_is_read_to_its_end() {
        let file = File::open("/proc/self/status").expect("procfs");
        let bytes = pseudo_file_bytes(&file, 0).expect("readable").expect("a pseudo file");
        assert!(bytes.starts_with(b"Name:"));
        if let Ok(file) = File::open("/sys/kernel/mm/transparent_hugepage/enabled") {
            let bytes = pseudo_file_bytes(&file, page_size()).expect("readable").expect("a pseudo file");
            assert!(!bytes.is_empty() && (bytes.len() as u64) < page_size());
        }
        let file = tempfile::tempfile().expect("a file");
        assert_eq!(pseudo_file_bytes(&file, 0), Ok(None));
        file.write_all_at(b"x", page_size() - 1).expect("room");
        assert_eq!(pseudo_file_bytes(&file, page_size()), Ok(None));
    }
}
