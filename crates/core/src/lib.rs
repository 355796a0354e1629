//! The engine of zerosend: file bytes to sockets without a trip through user space.
//!
//! The map, in the order a request meets it:
//!
//! | module | what it is for |
//! |---|---|
//! | [`files`] | resolve a request path to an open file under a root and plan the response |
//! | [`http`] | pure decisions: path, range, conditional request, negotiation, type; no I/O |
//! | [`cache`] | files kept ready to be sent, in LRU order |
//! | [`mapped_file`] | a file as memory, without the signal |
//! | [`transfer`] | [`transfer::Transfer`]: head + body to a descriptor, resumable at any byte, one file per method |
//! | [`reactor`] | one epoll thread that drives transfers nobody else drives |
//! | [`relay`] | bytes from socket to socket: proxy, echo |
//! | [`server`] | HTTP/1.1 on epoll threads of its own |
//! | [`shm`] | memory that processes share, and rings in it |
//! | [`output`] | files, FIFOs and terminals that logs and mirrors are written to |
//! | [`inspect`] | what the kernel can do, and what is in the page cache |
//! | [`bench`] | the comparison of methods that `zerosend bench` prints |
//! | [`pipe`] | pipes, sized, pooled and bounded |
//! | [`pool`] | threads for disk work that may block, in two lanes |
//! | [`thread`] | starting threads |
//! | [`raw`] | single calls, checked, for those who build their own |
//! | [`sys`] | the only unsafe code: one file per syscall family, never loops |
//! | [`error`], [`stats`] | typed errors; counters |
//! | [`failpoint`] | places where tests inject panics and delays |
//!
//! This crate knows nothing of Node; `crates/node` binds it.
#![deny(unsafe_code)]

pub mod bench;
pub mod cache;
pub mod error;
pub mod failpoint;
pub mod files;
pub mod http;
pub mod inspect;
pub mod mapped_file;
pub mod output;
pub mod pipe;
pub mod pool;
pub mod raw;
pub mod reactor;
pub mod relay;
pub mod server;
pub mod shm;
pub mod stats;
pub mod sys;
pub mod thread;
pub mod transfer;

pub use error::{Code, Error, Result};
