//! From a request path to an open file and the response to send.
//!
//! | module | what it is for |
//! |---|---|
//! | [`site`] | roots and options: which file answers a request |
//! | [`overrides`] | what one response has in place of the options of its site |
//! | `validators` | entity tag and `Last-Modified` |
//! | [`plan`] | status, headers and body for a file that was found |
//! | `head_cache` | response heads kept for a version of a file |
//!
//! Bytes are not read here and nothing is sent.

mod head_cache;
pub mod overrides;
pub mod plan;
pub mod site;
mod validators;

pub use overrides::{Overrides, Slice};
pub use plan::{Body, Head, Part, Response, Source};
pub use site::{Directory, Dotfiles, Outcome, PathInput, Request, Site, SiteOptions};
