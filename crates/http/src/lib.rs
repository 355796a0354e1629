//! Pure decisions about one request: which path, which range, is the copy fresh, which encoding, which type.
//!
//! Slices and structs go in, enums come out. Nothing here opens a file, reads a clock or knows a socket, so every rule
//! is tested with tables and compared with a naive version.
//!
//! | module | decides |
//! |---|---|
//! | [`path`] | what a request path names below a root |
//! | [`conditional`] | 304, 412 or proceed; whether a range still applies |
//! | [`range`] | which bytes |
//! | [`negotiation`] | which content coding |
//! | [`etag`], [`date`] | the two validators |
//! | [`mime`], [`headers`] | type and header values |
//! | [`caching`], [`glob`] | `Cache-Control` by file name |
#![forbid(unsafe_code)]

pub mod caching;
pub mod chunked;
pub mod conditional;
mod conformance;
pub mod date;
pub mod etag;
pub mod glob;
pub mod head_writer;
pub mod headers;
pub mod mime;
mod mime_table;
pub mod negotiation;
pub mod path;
pub mod range;
pub mod request;
pub mod route;
pub mod site;

pub use conformance::Conformance;
