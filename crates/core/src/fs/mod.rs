//! Directories and files: opened below a root, described, hashed and read.

pub mod directory;
pub mod meta;
pub mod mounts;
pub mod open_file;
pub mod pseudo_file;
pub mod root;

pub use meta::FileMeta;
pub use open_file::OpenFile;
pub use root::{Access, Lookup, OpenSupport, Root, Symlinks};
pub(crate) use root::{Identity, Visit};
