//! Relays: bytes from socket to socket through pipes of the kernel, on threads of their own.
//!
//! | module | what it is for |
//! |---|---|
//! | [`options`] | what a relay is told |
//! | `worker` | a thread with its epoll, timers and links |
//! | `link` | a client and its target: connecting, half-closes, failures |
//! | `flow` | one direction: socket, pipe, socket |
//! | `pipes` | the pipes of a worker |
//! | `targets` | which target is next, which are down |

mod flow;
mod link;
pub mod options;
mod pipes;
mod stats;
mod targets;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;

pub use options::{Balance, Destination, ProxyProtocol, RelayMethod, RelayOptions};
pub use stats::RelaySnapshot;

use crate::error::{Error, Result};
use crate::reactor::ending::Ending;
use crate::reactor::mailbox::Mailbox;
use crate::server::{Address, listener};
use worker::{Message, Shared, Worker};

/// A relay that runs. Dropping it closes it at once.
pub struct Relay {
    address: Address,
    shared: Arc<Shared>,
    mailboxes: Vec<Arc<Mailbox<Message>>>,
    ending: Ending,
}

impl Relay {
    /// Listens and relays.
    pub fn start(options: RelayOptions) -> Result<Self> {
        options.check()?;
        let (listeners, address) = listener::open(&options.address, options.workers, options.backlog, false)?;
        let shared = Arc::new(Shared::new(options));
        let mut relay = Self { address, shared: shared.clone(), mailboxes: Vec::new(), ending: Ending::default() };
        for listener in listeners {
            let mailbox = Arc::new(Mailbox::new().map_err(|errno| Error::system("eventfd", errno))?);
            let worker = Worker::new(shared.clone(), listener, mailbox.clone())?;
            relay.mailboxes.push(mailbox);
            let running = relay.ending.enter();
            std::thread::Builder::new()
                .name("zerosend-relay".into())
                .spawn(move || {
                    let _running = running;
                    worker.run();
                })
                .map_err(|error| {
                    Error::system("clone", Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN)))
                })?;
        }
        Ok(relay)
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What it has counted so far.
    pub fn stats(&self) -> RelaySnapshot {
        let stats = &self.shared.stats;
        RelaySnapshot {
            connections: self.shared.connections.load(Ordering::Relaxed) as u64,
            accepted: stats.accepted.get(),
            refused: stats.refused.get(),
            unreachable: stats.unreachable.get(),
            retries: stats.retries.get(),
            connect_timeouts: stats.connect_timeouts.get(),
            idle_timeouts: stats.idle_timeouts.get(),
            failed: stats.failed.get(),
            cut: stats.cut.get(),
            degraded: stats.degraded.get(),
            bytes_up: stats.up.get(),
            bytes_down: stats.down.get(),
        }
    }

    /// Calls `ended` when all is closed, on a thread of the relay's or at once.
    pub fn when_ended(&self, ended: impl FnOnce() + Send + 'static) {
        self.ending.when_ended(ended);
    }

    /// Accepts no more, lets connections end for as long as `drain`, and then cuts them.
    pub fn close(&self, drain: Duration) {
        let end = Instant::now() + drain;
        for mailbox in &self.mailboxes {
            mailbox.send(Message::Drain(end));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}
