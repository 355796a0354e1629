//! Which file systems answer from the memory of this machine, and which have to ask another process or machine.
//!
//! On a local file system attributes of a file in use cost no wait, so that a thread that serves others may ask for them.
//! FUSE and network file systems may take any time, and only a thread of the pool may ask. The kernel has no flag that says
//! which is which, so the types known to be local are listed and every other one counts as remote: right, only slower.
//!
//! The verdict is remembered for each mount. `statfs(2)` itself asks a remote file system, so it is called where waiting is
//! allowed, and elsewhere a mount without a verdict counts as remote.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{PoisonError, RwLock};

use nix::sys::statfs::fstatfs;

use zerosend_sys::open::Stat;

/// A mount: the device of its file system, and the mount's number. Linux 6.8 and later never reuse the number; before, a new
/// mount may get both numbers of one that is gone, and with them its verdict.
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

/// Verdicts kept at most; beyond it all are forgotten at once.
const MAX_VERDICTS: usize = 4096;

static VERDICTS: RwLock<Option<HashMap<Mount, bool>>> = RwLock::new(None);

/// Magic numbers of `statfs(2)` and `<linux/magic.h>`. The file systems of containers (overlay, aufs) and of secrets (eCryptfs)
/// lie on others, which are local in practice.
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

/// Whether the mount is local; `None` when that is not known without waiting.
pub(crate) fn known(mount: Mount) -> Option<bool> {
    VERDICTS.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.get(&mount).copied()
}

/// Whether the file system of `fd`, which is on `mount`, is local. May wait for it.
pub(crate) fn is_local(fd: impl AsFd, mount: Mount) -> bool {
    if let Some(verdict) = known(mount) {
        return verdict;
    }
    // Not remembered after an error: a FUSE daemon that is gone says ENOTCONN.
    let Ok(answer) = fstatfs(fd) else { return false };
    // The type of the magic number differs between architectures; it has 32 bits.
    let verdict = LOCAL.contains(&(answer.filesystem_type().0 as u32));
    let mut verdicts = VERDICTS.write().unwrap_or_else(PoisonError::into_inner);
    let verdicts = verdicts.get_or_insert_default();
    if verdicts.len() >= MAX_VERDICTS {
        verdicts.clear();
    }
    verdicts.insert(mount, verdict);
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerosend_sys::open::{Attributes, statx};

    #[test]
    fn a_verdict_is_remembered_for_its_mount() {
        let directory = tempfile::tempdir().expect("a directory");
        let fd = std::fs::File::open(directory.path()).expect("open");
        let mount = Mount::from(&statx(&fd, Attributes::Cached).expect("statx"));
        let verdict = is_local(&fd, mount);
        assert_eq!(known(mount), Some(verdict));
        assert_eq!(known(Mount { dev: mount.dev, number: u64::MAX }), None);
    }
}
