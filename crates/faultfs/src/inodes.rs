//! The inodes that the kernel refers to. Each has an O_PATH descriptor, so it stays the same file after a rename over its path.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::INodeNo;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat};

/// A file, and the path below the mount by which it was last looked up.
pub(crate) struct Inode {
    fd: OwnedFd,
    path: Mutex<PathBuf>,
}

impl Inode {
    pub(crate) fn path(&self) -> PathBuf {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A path that refers to the file after a rename or unlink, too.
    pub(crate) fn proc_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    pub(crate) fn stat(&self) -> Result<FileStat, Errno> {
        fstat(&self.fd)
    }
}

impl AsFd for Inode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

struct Known {
    inode: Arc<Inode>,
    lookups: u64,
}

pub(crate) struct Inodes {
    root: Arc<Inode>,
    root_stat: FileStat,
    known: Mutex<HashMap<u64, Known>>,
}

const FLAGS: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Inodes {
    pub(crate) fn new(backing: &Path) -> Result<Inodes, Errno> {
        let fd = nix::fcntl::open(backing, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let root = Arc::new(Inode { fd, path: Mutex::default() });
        Ok(Inodes { root_stat: root.stat()?, root, known: Mutex::default() })
    }

    pub(crate) fn get(&self, number: INodeNo) -> Result<Arc<Inode>, Errno> {
        if number == INodeNo::ROOT {
            return Ok(Arc::clone(&self.root));
        }
        self.known().get(&number.0).map(|known| Arc::clone(&known.inode)).ok_or(Errno::ESTALE)
    }

    /// Looks up a name in the backing directory. The kernel sends a `forget` for each lookup.
    pub(crate) fn lookup(&self, parent: &Inode, name: &OsStr) -> Result<FileStat, Errno> {
        let fd = openat(parent, name, FLAGS, Mode::empty())?;
        let stat = fstat(&fd)?;
        // Inode numbers are unique in one file system only.
        if stat.st_dev != self.root_stat.st_dev {
            return Err(Errno::EXDEV);
        }
        let path = child(parent, name);
        let mut known = self.known();
        let entry = known
            .entry(self.number(stat.st_ino).0)
            .or_insert_with(|| Known { inode: Arc::new(Inode { fd, path: Mutex::default() }), lookups: 0 });
        entry.lookups += 1;
        *entry.inode.path.lock().unwrap_or_else(PoisonError::into_inner) = path;
        Ok(stat)
    }

    pub(crate) fn forget(&self, number: INodeNo, lookups: u64) {
        let mut known = self.known();
        if let Some(entry) = known.get_mut(&number.0) {
            entry.lookups = entry.lookups.saturating_sub(lookups);
            if entry.lookups == 0 {
                known.remove(&number.0);
            }
        }
    }

    /// The inode number for the kernel: the number in the backing file system, but 1 for the root.
    pub(crate) fn number(&self, backing: u64) -> INodeNo {
        if backing == self.root_stat.st_ino {
            INodeNo::ROOT
        } else if backing == INodeNo::ROOT.0 {
            INodeNo(self.root_stat.st_ino)
        } else {
            INodeNo(backing)
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path below the mount of a name in a directory.
pub(crate) fn child(parent: &Inode, name: &OsStr) -> PathBuf {
    let mut path = parent.path().into_os_string();
    path.push("/");
    path.push(name);
    path.into()
}
