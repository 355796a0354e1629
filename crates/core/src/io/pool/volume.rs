//! The file system that a job depends on, found without access to that file system.
//!
//! A system call on a path of a hung mount hangs too. So the file system of a path is looked up in the mount table
//! (`/proc/self/mountinfo`, see proc(5)): the longest mount point above the path. A symbolic link into another mount is not
//! followed; the limits of `schedule.rs` apply to jobs of such paths as well.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use zerosend_sys::open::{Attributes, statx};

/// A file system, by device number. Jobs of one volume share threads and do not delay jobs of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Volume(u64);

impl Volume {
    /// No file system, or an unknown one. No file has device number 0.
    pub const NONE: Volume = Volume(0);

    /// The file system with device number `device` (`st_dev`).
    pub fn of_device(device: u64) -> Self {
        Self(device)
    }

    /// The file system of an open file, by `statx(2)` with `AT_STATX_DONT_SYNC`, which needs no access to it.
    pub fn of(file: impl AsFd) -> Self {
        statx(file, Attributes::Cached).map_or(Self::NONE, |stat| Self(stat.dev))
    }

    /// The file system of `path`. Costs one poll(2); accesses procfs only.
    pub fn of_path(path: &Path) -> Self {
        with_mount_table(|table| table.find(path)).map_or(Self::NONE, Self)
    }
}

fn with_mount_table<T>(find: impl FnOnce(&MountTable) -> Option<T>) -> Option<T> {
    static TABLE: Mutex<Option<MountTable>> = Mutex::new(None);
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    if table.is_none() {
        *table = MountTable::open().ok();
    }
    let table = table.as_mut()?;
    table.refresh().ok()?;
    find(table)
}

/// Mount points and their device numbers, read again when the kernel reports a change.
struct MountTable {
    file: File,
    devices: HashMap<PathBuf, u64>,
}

impl MountTable {
    fn open() -> std::io::Result<Self> {
        let file = File::open("/proc/self/mountinfo")?;
        let mut table = Self { file, devices: HashMap::new() };
        table.read()?;
        Ok(table)
    }

    fn refresh(&mut self) -> std::io::Result<()> {
        if self.has_changed() { self.read() } else { Ok(()) }
    }

    fn find(&self, path: &Path) -> Option<u64> {
        normalize(path)?.ancestors().find_map(|above| self.devices.get(above).copied())
    }

    /// proc(5): after a change of the table, poll(2) reports POLLERR and POLLPRI once for each open descriptor.
    fn has_changed(&self) -> bool {
        let mut wanted = [PollFd::new(self.file.as_fd(), PollFlags::POLLPRI)];
        poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut text = Vec::new();
        self.file.rewind()?;
        self.file.read_to_end(&mut text)?;
        self.devices = text.split(|byte| *byte == b'\n').filter_map(parse).collect();
        Ok(())
    }
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime ...`: the third field is the device, the fifth the mount point. Of two mounts on
/// the same point, the later line is the visible one.
fn parse(line: &[u8]) -> Option<(PathBuf, u64)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let point = unescape(fields.nth(1)?);
    Some((PathBuf::from(OsString::from_vec(point)), libc::makedev(major.parse().ok()?, minor.parse().ok()?)))
}

/// Space, tab, newline and backslash are written as `\040`, `\011`, `\012`, `\134`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// An absolute path without `.` and `..`; symbolic links are not resolved.
fn normalize(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::from("/");
    let current = if path.is_absolute() { None } else { Some(std::env::current_dir().ok()?) };
    for component in current.iter().flat_map(|current| current.components()).chain(path.components()) {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_line_of_the_mount_table() {
        let line = br"36 35 98:3 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        assert_eq!(parse(line), Some((PathBuf::from("/mnt 2"), libc::makedev(98, 3))));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(br"36 35 x:3 / / rw"), None);
        assert_eq!(unescape(br"a\134b\9"), br"a\b\9");
    }

    #[test]
    fn finds_the_longest_mount_point() {
        let mut table = MountTable::open().expect("procfs");
        table.devices = [("/", 1), ("/srv", 2), ("/srv/a", 3)].map(|(at, device)| (PathBuf::from(at), device)).into();
        for (path, device) in [("/x", 1), ("/srv/b", 2), ("/srv/a/../a/f", 3), ("/srv/ab", 2), ("/srv/a/../../x", 1)] {
            assert_eq!(table.find(Path::new(path)), Some(device), "{path}");
        }
    }

    #[test]
    fn path_and_descriptor_give_the_same_volume() {
        let file = File::open("/proc/self/status").expect("procfs");
        assert_ne!(Volume::of(&file), Volume::NONE);
        assert_eq!(Volume::of(&file), Volume::of_path(Path::new("/proc/self/status")));
        assert_ne!(Volume::of_path(Path::new("/")), Volume::of(&file));
    }
}
