//! The engine of zerosend: file bytes to sockets without a trip through user space.
//!
//! | module | what it is for |
//! |---|---|
//! | [`fs`] | directories and files below a root: opening, metadata, content tags |
//! | [`cache`] | files kept ready to be sent, in LRU order |
//! | [`static_site`] | resolve a request path to an open file and plan the response |
//! | [`mapped_file`] | a file as memory, without the signal |
//! | [`event_loop`] | epoll, mailboxes, timers |
//! | [`net`] | addresses and listening sockets |
//! | [`io`] | pipes, the thread pool for disk work, non-blocking descriptors, single checked calls |
//! | [`transfer`] | [`transfer::Transfer`]: head + body to a descriptor, resumable at any byte, one file per method |
//! | [`reactor`] | one epoll thread that drives transfers to bare descriptors |
//! | [`server`] | the HTTP/1.1 file server |
//! | [`relay`] | bytes from socket to socket: proxy, echo |
//! | [`shm`] | memory that processes share, and rings in it |
//! | [`output`] | files, FIFOs and terminals that logs and mirrors are written to |
//! | [`thread`] | starting threads |
//! | [`error`], [`stats`] | typed errors; counters |
//! | [`failpoint`] | places where tests inject panics and delays |
//!
//! Decisions about HTTP are in `zerosend-http`, system calls in `zerosend-sys`. `zerosend-tools` measures, `zerosend-node`
//! binds all of it to Node.
#![forbid(unsafe_code)]

pub mod cache;
pub mod error;
pub mod event_loop;
pub mod failpoint;
pub mod fs;
pub mod io;
pub mod mapped_file;
pub mod net;
pub mod output;
pub mod reactor;
pub mod relay;
pub mod server;
pub mod shm;
pub mod static_site;
pub mod stats;
pub mod thread;
pub mod transfer;

pub use error::{Code, Error, Result};
