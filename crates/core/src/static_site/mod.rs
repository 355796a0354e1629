//! From a request path to an open file and the response to send. Nothing is sent here.
//!
//! | module | what it is for |
//! |---|---|
//! | [`site`] | roots and options: answers requests |
//! | [`response`] | the result of a request, and the file of a response |
//! | `validators` | entity tag and `Last-Modified` |
//! | `head_cache` | response heads kept for a version of a file |
//!
//! Which file answers is decided in [`zerosend_http::site::resolver`], and with which status and headers in
//! [`zerosend_http::site::plan`].

mod head_cache;
pub mod response;
pub mod site;
mod validators;

pub use response::{Outcome, Response, Source};
pub use site::Site;
pub use zerosend_http::site::{
    Body, BodyPart, Directory, Dotfiles, Head, Overrides, PathInput, Request, ServedRange, SiteOptions,
};
