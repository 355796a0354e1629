//! Which file systems are local: they answer from the memory of this machine, without another process or machine.
//!
//! On a local file system the attributes of a cached file are read without blocking, so a thread that serves several clients may
//! read them. FUSE and network file systems may take any time, so only pool threads access them. The kernel has no flag for
//! this, so the local types are listed, and every other type counts as remote, which is correct but slower.
//!
//! The result is cached for each mount. `statfs(2)` itself accesses a remote file system, so it is called only where blocking is
//! allowed; elsewhere a mount without a cached result counts as remote.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{PoisonError, RwLock};

use nix::sys::statfs::fstatfs;

use zerosend_sys::open::Stat;

/// A mount: the device of its file system, and the mount number. Before Linux 6.8, which does not reuse the number, a new mount may
/// get both numbers of a removed one, and with them its cached result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Mount {
    dev: u64,
    number: u64,
}

impl From<&Stat> for Mount {
    fn from(stat: &Stat) -> Self {
        Self { dev: stat.dev, number: stat.mount }
    }
}

/// Cached results. When full, all are discarded.
const MAX_MOUNTS: usize = 4096;

static IS_LOCAL: RwLock<Option<HashMap<Mount, bool>>> = RwLock::new(None);

/// Magic numbers from `statfs(2)` and `<linux/magic.h>`. Overlay, aufs and eCryptfs are stacked on other file systems, which are
/// local in practice.
const LOCAL: [u32; 41] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0xca45_1a4e, // bcachefs
    0x2fc1_2fc1, // zfs
    0xf2f5_2010, // f2fs
    0x3153_464a, // jfs
    0x5265_4973, // reiserfs
    0x3434,      // nilfs
    0x137f,      // minix
    0x2468,      // minix 2
    0x4d5a,      // minix 3
    0x2405_1905, // ubifs
    0x72b6,      // jffs2
    0x4d44,      // msdos, vfat
    0x2011_bab0, // exfat
    0x7366_746e, // ntfs3
    0x5346_544e, // ntfs
    0x4244,      // hfs
    0x482b,      // hfs+
    0x9660,      // iso9660
    0x1501_3346, // udf
    0x7371_7368, // squashfs
    0xe0f5_e1e2, // erofs
    0x28cd_3d45, // cramfs
    0x7275,      // romfs
    0x5a4f_4653, // zonefs
    0x6462_6720, // debugfs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlay
    0x6175_6673, // aufs
    0xf15f,      // ecryptfs
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x6367_7270, // cgroup2
    0x0027_e0eb, // cgroup
    0x7363_6673, // securityfs
    0x7472_6163, // tracefs
    0x4249_4e4d, // binfmt_misc
    0x9584_58f6, // hugetlbfs
];

/// The cached result for a mount.
pub(crate) fn known(mount: Mount) -> Option<bool> {
    IS_LOCAL.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.get(&mount).copied()
}

/// Whether the file system of `fd`, which is on `mount`, is local. May block on it.
pub(crate) fn is_local(fd: impl AsFd, mount: Mount) -> bool {
    if let Some(is_local) = known(mount) {
        return is_local;
    }
    // Errors are not cached: after the exit of a FUSE daemon statfs fails with ENOTCONN.
    let Ok(answer) = fstatfs(fd) else { return false };
    // The type of the magic number differs between architectures; it has 32 bits.
    let is_local = LOCAL.contains(&(answer.filesystem_type().0 as u32));
    let mut mounts = IS_LOCAL.write().unwrap_or_else(PoisonError::into_inner);
    let mounts = mounts.get_or_insert_default();
    if mounts.len() >= MAX_MOUNTS {
        mounts.clear();
    }
    mounts.insert(mount, is_local);
    is_local
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerosend_sys::open::{Attributes, statx};

    #[test]
    fn the_result_is_cached_for_the_mount() {
        let directory = tempfile::tempdir().expect("a directory");
        let fd = std::fs::File::open(directory.path()).expect("open");
        let mount = Mount::from(&statx(&fd, Attributes::Cached).expect("statx"));
        let result = is_local(&fd, mount);
        assert_eq!(known(mount), Some(result));
        assert_eq!(known(Mount { dev: mount.dev, number: u64::MAX }), None);
    }
}
