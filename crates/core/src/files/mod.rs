//! From a request path to an open file and the response to send.
//!
//! | module | what it is for |
//! |---|---|
//! | [`meta`] | the identity of a version of a file |
//! | `mounts` | which file systems are local |
//! | [`open_file`] | a regular file, open, with the facts that validators are made of |
//! | [`root`] | a directory below which paths are opened, and what symbolic links may do |
//! | [`site`] | roots and options: which file answers a request |
//! | [`directory`] | what is in a directory, for a list |
//! | `content_tag` | strong entity tags |
//! | [`overrides`] | what one response has in place of the options of its site |
//! | `validators` | entity tag and `Last-Modified` |
//! | [`pseudo_file`] | files whose size says nothing |
//! | [`plan`] | status, headers and body for a file that was found |
//!
//! Bytes are not read here and nothing is sent.

mod content_tag;
pub mod directory;
mod memo;
pub mod meta;
mod mounts;
pub mod open_file;
pub mod overrides;
pub mod plan;
pub mod pseudo_file;
pub mod root;
pub mod site;
mod validators;

pub use meta::FileMeta;
pub use open_file::OpenFile;
pub use overrides::{Overrides, Slice};
pub use plan::{Body, Head, Part, Response, Source};
pub use root::{Access, Lookup, OpenSupport, Root, Symlinks};
pub(crate) use root::{Identity, Visit};
pub use site::{Directory, Dotfiles, Outcome, PathInput, Request, Site, SiteOptions};
