//! Directories and files below a root.
//!
//! | module | what it is for |
//! |---|---|
//! | [`root`] | opening paths below a directory |
//! | [`open_file`] | an open regular file |
//! | [`meta`] | metadata, and which version of a file it is |
//! | [`mounts`] | which file systems are local |
//! | [`directory`] | directory listings |
//! | [`pseudo_file`] | files of procfs and sysfs |
//! | `content_tag` | hashes of file contents |

pub(crate) mod content_tag;
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
