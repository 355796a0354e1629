//! A server of files: HTTP/1.1 on epoll threads of its own, by the same [`crate::static_site`] and [`zerosend_http`] code as
//! everybody else.
//!
//! | module | what it is for |
//! |---|---|
//! | [`options`] | what a server is told |
//! | `worker` | a thread with its epoll, timers and connections |
//! | `admission`, `descriptors` | which connections a worker accepts: limits, refusals, descriptors left to files |
//! | `shared`, `message`, `context` | state shared by the workers, messages between threads, what a connection uses of its worker |
//! | `connection` | one connection, from head to head |
//! | `answer` | from a request to the bytes of its answer |
//! | `listing`, `error_page`, `html` | bodies that are not files |
//! | `routing` | which mount serves a request, and which requests go to the application |
//! | [`handoff`] | the queue of connections for the application |
//! | [`access_log`], [`stats`] | access log and counters |
//!
//! A connection belongs to the worker that accepted it. Whatever may wait for a disk is done by the
//! [`crate::io::pool`] and comes back as a message; so a worker waits for nothing but news.

pub mod access_log;
mod admission;
mod answer;
mod connection;
mod context;
mod date;
mod descriptors;
mod error_page;
pub mod handoff;
mod html;
mod json;
mod listing;
mod message;
mod mount;
pub mod options;
mod reply;
mod routing;
mod shared;
pub mod stats;
mod worker;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

pub use handoff::HandoffQueue;
pub use mount::{ListFormat, Mount};
pub use options::{Limits, ServerOptions};
pub use stats::{Limit, Snapshot};

use crate::error::{Error, Result};
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::thread_group::ThreadGroup;
use crate::net::Address;
use crate::net::acceptor::Acceptor;
use crate::net::listener::{self, Listen, Listener};
use message::Message;
use shared::Shared;
use worker::Worker;

/// A drain without a bound: ten years.
const MAX_DRAIN: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A server that runs. Dropping it closes it at once.
pub struct Server {
    address: Address,
    shared: Arc<Shared>,
    mailboxes: Vec<Arc<Mailbox<Message>>>,
    threads: ThreadGroup,
}

impl Server {
    /// Listens and serves.
    pub fn start(options: ServerOptions) -> Result<Self> {
        options.check()?;
        let listen = Listen {
            count: options.workers,
            backlog: options.backlog,
            reuse_port: options.reuse_port,
            socket_mode: options.socket_mode,
        };
        let opened = listener::open(&options.address, &listen)?;
        Self::run(options, opened)
    }

    /// Listens on `socket`, which is bound and which others may have too, and serves. [`ServerOptions::address`] and
    /// [`ServerOptions::reuse_port`] do not count.
    pub fn adopt(options: ServerOptions, socket: OwnedFd) -> Result<Self> {
        options.check()?;
        let opened = listener::adopt(socket, options.workers, options.backlog)?;
        Self::run(options, opened)
    }

    fn run(options: ServerOptions, (listeners, address): (Vec<Listener>, Address)) -> Result<Self> {
        let shared = Arc::new(Shared::new(options));
        let mut mailboxes = Vec::new();
        for _ in &listeners {
            mailboxes.push(Arc::new(Mailbox::new().map_err(|errno| Error::system("eventfd", errno))?));
        }
        let acceptors = Acceptor::for_workers(listeners, &mailboxes, shared.options.backlog);
        let mut workers = Vec::new();
        for (index, (acceptor, mailbox)) in acceptors.into_iter().zip(&mailboxes).enumerate() {
            workers.push(Worker::new(shared.clone(), index, acceptor, mailbox.clone())?);
        }
        let server = Self { address, shared, mailboxes, threads: ThreadGroup::default() };
        for worker in workers {
            let guard = server.threads.guard();
            crate::thread::spawn("zerosend-server", move || {
                let _guard = guard;
                worker.run();
            })
            // The server is dropped, and with it those workers that run already.
            .map_err(|error| Error::system("clone", Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN))))?;
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What it has counted so far.
    pub fn stats(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// The access log.
    pub fn log(&self) -> Option<&Arc<access_log::AccessLog>> {
        self.shared.options.log.as_ref()
    }

    /// Calls `callback` once all worker threads have exited: on the last of them, or at once on the calling thread.
    pub fn on_exit(&self, callback: impl FnOnce() + Send + 'static) {
        self.threads.on_exit(callback);
    }

    /// Accepts what is in the backlog and no more, closes idle connections, lets responses end for as long as `drain`, and
    /// resets those that have not.
    pub fn close(&self, drain: Duration) {
        // A time that no clock can name is one that never comes.
        let end = Instant::now().checked_add(drain).unwrap_or_else(|| Instant::now() + MAX_DRAIN);
        self.tell(|| Message::Drain(end));
    }

    /// Closes connections that wait for a request, and goes on.
    pub fn close_idle(&self) {
        self.tell(|| Message::CloseIdle);
    }

    /// Closes all connections, whatever they are at, and goes on.
    pub fn close_all(&self) {
        self.tell(|| Message::CloseAll);
    }

    fn tell(&self, message: impl Fn() -> Message) {
        for mailbox in &self.mailboxes {
            mailbox.send(message());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}
