//! HTTP decisions without I/O: slices and structs in, enums out. No function opens a file, reads the clock or uses a socket, so
//! every rule is tested with tables and against a naive version.
//!
//! | module | what it is for |
//! |---|---|
//! | [`site`] | which file answers a request, and with which response |
//! | [`path`] | a request path as a checked path below a root |
//! | [`conditional`] | preconditions: 304, 412 or proceed; whether a range applies |
//! | [`range`] | `Range`: which bytes |
//! | [`negotiation`] | `Accept-Encoding`: which content coding |
//! | [`etag`], [`date`] | the two validators |
//! | [`mime`], [`headers`] | content types and header values |
//! | [`caching`], [`glob`] | `Cache-Control` by file name |
//! | [`request`], [`chunked`] | the request parser of the native server |
//! | [`head_writer`] | the head of a response as bytes |
//! | [`route`] | route patterns of applications |
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
