//! The size of a memory page.

use std::sync::OnceLock;

use nix::unistd::{SysconfVar, sysconf};

/// Bytes of a memory page; see `sysconf(3)`, `_SC_PAGESIZE`.
pub fn page_size() -> u64 {
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| sysconf(SysconfVar::PAGE_SIZE).ok().flatten().map_or(4096, |size| size as u64))
}
