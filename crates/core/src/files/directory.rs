//! What is in a directory below a root, for a list.

use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{SFlag, fstatat};

use super::root::{Access, Root, Visit};
use crate::error::{Error, Result};
use crate::http::listing::{Entry, Listing};

/// Entries of a list at most; what is beyond is counted.
const MOST_ENTRIES: usize = 10_000;

/// Lists the directory at `relative` (checked by [`crate::http::path`]). May wait for a disk. Files and directories only:
/// nothing else is served. Links are followed for what they are, though not everything a link leads to is served; names
/// that are no UTF-8 are left out, for no URL leads to them.
pub fn list(root: &Root, relative: &str, dotfiles: bool) -> Result<Listing> {
    let failed = |errno| Error::system("opendir", errno).with_path(root.path().join(relative));
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = Visit::new(root, Access::MayBlock).open_fd(relative, flags).map_err(failed)?;
    let mut directory = Dir::from_fd(fd).map_err(failed)?;
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
        if names.len() == MOST_ENTRIES {
            omitted += 1;
        } else {
            names.push(name.to_owned());
        }
    }
    for name in names {
        // Gone, or a link to nothing: nothing to list.
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
