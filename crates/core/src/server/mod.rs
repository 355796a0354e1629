//! A server of files: HTTP/1.1 on epoll threads of its own, by the same [`crate::files`] and [`crate::http`] code as
//! everybody else.
//!
//! | module | what it is for |
//! |---|---|
//! | [`options`] | what a server is told |
//! | `listener` | sockets that connections come from |
//! | `worker` | a thread with its epoll, timers and connections |
//! | `connection` | one connection, from head to head |
//! | `answer` | from a request to the bytes of its answer |
//! | [`door`] | requests that are for the application behind this server |
//! | [`log`], [`stats`] | who was here, and how often |
//!
//! A connection belongs to the worker that accepted it. Whatever may wait for a disk is done by the
//! [`crate::pool`] and comes back as a message; so a worker waits for nothing but news.

mod answer;
mod connection;
mod date;
pub mod door;
pub(crate) mod listener;
pub mod log;
pub mod options;
pub mod stats;
mod worker;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

pub use door::Door;
pub use options::{Address, Limits, ListFormat, Mount, ServerOptions};
pub use stats::{Limit, Snapshot};

use crate::error::{Error, Result};
use crate::reactor::ending::Ending;
use crate::reactor::mailbox::Mailbox;
use listener::Listener;
pub(crate) use listener::to_std;
use worker::{Message, Shared, Worker};

/// A server that runs. Dropping it closes it at once.
pub struct Server {
    address: Address,
    shared: Arc<Shared>,
    mailboxes: Vec<Arc<Mailbox<Message>>>,
    ending: Ending,
}

impl Server {
    /// Listens and serves.
    pub fn start(options: ServerOptions) -> Result<Self> {
        options.check()?;
        let opened = listener::open(&options.address, options.workers, options.backlog, options.reuse_port)?;
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
        let mut workers = Vec::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            let mailbox = Arc::new(Mailbox::new().map_err(|errno| Error::system("eventfd", errno))?);
            workers.push(Worker::new(shared.clone(), index, listener, mailbox.clone())?);
            mailboxes.push(mailbox);
        }
        let server = Self { address, shared, mailboxes, ending: Ending::default() };
        for worker in workers {
            let guard = server.ending.enter();
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

    /// Calls `ended` when all is closed, on a thread of the server's or at once.
    pub fn when_ended(&self, ended: impl FnOnce() + Send + 'static) {
        self.ending.when_ended(ended);
    }

    /// Accepts no more, closes idle connections, lets responses end for as long as `drain`, and then cuts.
    pub fn close(&self, drain: Duration) {
        let end = Instant::now() + drain;
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
