//! The native HTTP/1.1 file server. It serves sites with the same code as the Fastify plugin and the Node handler:
//! [`crate::static_site`] and [`zerosend_http`].
//!
//! | module | what it is for |
//! |---|---|
//! | [`options`], `mount` | options, limits and their validation |
//! | `worker` | a thread with its event loop and connections |
//! | `admission`, `descriptors` | which connections a worker accepts: limits, refusals, descriptors left to files |
//! | `shared`, `message`, `context` | state shared by the workers, messages between threads, the part of a worker that its connections use |
//! | `connection` | the state machine of a connection |
//! | `answer`, `reply`, `date` | from a request head to its response |
//! | `listing`, `error_page`, `html`, `json` | response bodies that are not files |
//! | `routing` | which mount serves a request, and which requests go to the application |
//! | [`handoff`] | the queue of connections for the application |
//! | [`access_log`], [`stats`] | access log and counters |
//!
//! A connection stays with the worker that accepted it. A worker blocks in epoll_wait(2) only: work that may block on disk I/O runs
//! on the [`crate::io::pool`], which sends its result to the worker as a message.

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
use std::time::Duration;

pub use handoff::HandoffQueue;
pub use mount::{ListFormat, Mount};
pub use options::{Limits, ServerOptions};
pub use stats::{Limit, Snapshot};

use crate::error::Result;
use crate::event_loop::drain_deadline;
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::thread_group::ThreadGroup;
use crate::net::Address;
use crate::net::acceptor::Acceptor;
use crate::net::listener::{self, Listen, Listener};
use message::Message;
use shared::Shared;
use worker::Worker;

/// A running server. Dropping it closes it at once.
pub struct Server {
    address: Address,
    shared: Arc<Shared>,
    mailboxes: Vec<Arc<Mailbox<Message>>>,
    threads: ThreadGroup,
}

impl Server {
    /// Listens on [`ServerOptions::address`] and starts the workers.
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

    /// Listens on `socket`, which is bound and may be shared with other processes, and starts the workers. Ignores
    /// [`ServerOptions::address`] and [`ServerOptions::reuse_port`].
    pub fn adopt(options: ServerOptions, socket: OwnedFd) -> Result<Self> {
        options.check()?;
        let opened = listener::adopt(socket, options.workers, options.backlog)?;
        Self::run(options, opened)
    }

    fn run(options: ServerOptions, (listeners, address): (Vec<Listener>, Address)) -> Result<Self> {
        let shared = Arc::new(Shared::new(options));
        let mailboxes: Vec<_> = listeners.iter().map(|_| Mailbox::new().map(Arc::new)).collect::<Result<_>>()?;
        let acceptors = Acceptor::for_workers(listeners, &mailboxes, shared.options.backlog);
        let mut workers = Vec::new();
        for (index, (acceptor, mailbox)) in acceptors.into_iter().zip(&mailboxes).enumerate() {
            workers.push(Worker::new(shared.clone(), index, acceptor, mailbox.clone())?);
        }
        let server = Self { address, shared, mailboxes, threads: ThreadGroup::default() };
        for worker in workers {
            // On an error `server` is dropped, which stops the workers that are running.
            server.threads.spawn("zerosend-server", move || worker.run())?;
        }
        Ok(server)
    }

    /// The address the server listens on.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The counters.
    pub fn stats(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// The access log, if there is one.
    pub fn log(&self) -> Option<&Arc<access_log::AccessLog>> {
        self.shared.options.log.as_ref()
    }

    /// Calls `callback` once all worker threads have exited: on the last of them, or at once on the calling thread.
    pub fn on_exit(&self, callback: impl FnOnce() + Send + 'static) {
        self.threads.on_exit(callback);
    }

    /// Accepts the connections in the backlog and no later ones, closes idle connections, and resets those that are still
    /// responding after `drain`.
    pub fn close(&self, drain: Duration) {
        let deadline = drain_deadline(drain);
        self.broadcast(|| Message::Drain(deadline));
    }

    /// Closes idle connections. The server continues to accept connections.
    pub fn close_idle(&self) {
        self.broadcast(|| Message::CloseIdle);
    }

    /// Closes all connections. The server continues to accept connections.
    pub fn close_all(&self) {
        self.broadcast(|| Message::CloseAll);
    }

    fn broadcast(&self, message: impl Fn() -> Message) {
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
