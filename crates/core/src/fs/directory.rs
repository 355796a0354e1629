//! Opens and lists a directory below a root.

use std::os::fd::OwnedFd;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{SFlag, fstatat};

use super::root::{Access, Root, Visit};
use crate::error::{Error, Result};
use zerosend_http::path::RequestPath;

/// Entries of a listing. Further ones are only counted.
const MAX_ENTRIES: usize = 10_000;

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, without a slash.
    pub name: String,
    /// A directory.
    pub is_directory: bool,
    /// Bytes of a file; 0 for a directory.
    pub size: u64,
    /// Last modification in seconds since 1970.
    pub modified: i64,
}

/// The entries of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Directories first, then by name.
    pub entries: Vec<Entry>,
    /// Number of entries left out because the directory has more than 10,000.
    pub omitted: u64,
}

impl Listing {
    /// Sorts `entries`.
    pub fn new(mut entries: Vec<Entry>, omitted: u64) -> Self {
        entries.sort_unstable_by(|one, other| {
            other.is_directory.cmp(&one.is_directory).then_with(|| one.name.cmp(&other.name))
        });
        Self { entries, omitted }
    }
}

/// What [`open`] opens a path for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory, for a listing.
    Directory,
    /// Any file, for its attributes.
    Entry,
}

/// Opens `relative` below `root`, with the root's policy for symbolic links. May block on the disk. A name that no request path
/// can express, for example one with a backslash, is `ENOENT`.
pub fn open(root: &Root, relative: &str, kind: Kind) -> Result<OwnedFd> {
    let failed = |errno| Error::system("open", errno).with_path(root.path().join(relative));
    let path = RequestPath::from_decoded(relative).map_err(|_| failed(Errno::ENOENT))?;
    let flags = match kind {
        Kind::Directory => OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Kind::Entry => OFlag::O_PATH,
    };
    Visit::new(root, Access::MayBlock).open_fd(path.relative(), flags | OFlag::O_CLOEXEC).map_err(failed)
}

/// Lists the directory at `relative` (checked by [`zerosend_http::path`]). May block on the disk. Lists files and directories; a
/// symbolic link has the type of its target, which the root's policy may still refuse to serve. Names that are not UTF-8 are left
/// out, because no URL leads to them.
pub fn list(root: &Root, relative: &str, dotfiles: bool) -> Result<Listing> {
    let failed = |errno| Error::system("opendir", errno).with_path(root.path().join(relative));
    let mut directory = Dir::from_fd(open(root, relative, Kind::Directory)?).map_err(failed)?;
    let mut entries = Vec::new();
    let mut omitted = 0;
    let mut names = Vec::new();
    for entry in directory.iter() {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let hidden = name.starts_with('.') && !dotfiles;
        let servable = matches!(entry.file_type(), Some(Type::File | Type::Directory | Type::Symlink) | None);
        if name == "." || name == ".." || hidden || !servable {
            continue;
        }
        if names.len() == MAX_ENTRIES {
            omitted += 1;
        } else {
            names.push(name.to_owned());
        }
    }
    for name in names {
        // Deleted in the meantime, or a dangling link.
        let Ok(stat) = fstatat(&directory, name.as_str(), AtFlags::empty()) else { continue };
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFREG && kind != SFlag::S_IFDIR {
            continue;
        }
        let is_directory = kind == SFlag::S_IFDIR;
        let size = if is_directory { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
        entries.push(Entry { name, is_directory, size, modified: stat.st_mtime });
    }
    Ok(Listing::new(entries, omitted))
}
