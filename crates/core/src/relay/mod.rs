//! Relays: bytes from socket to socket through pipes of the kernel, on threads of their own.
//!
//! | module | what it is for |
//! |---|---|
//! | [`options`] | what a relay is told |
//! | [`join`] | joining what is open already, and what becomes of links |
//! | `worker` | a thread with its epoll, timers and links |
//! | `accepting` | how a worker comes by its connections |
//! | `connecting` | the way of a link to its target, and of its mirrors to their servers |
//! | `dial` | connecting to the addresses of a name in turn |
//! | `link` | a client and its target: connecting, half-closes, failures |
//! | `side` | one end of a link |
//! | `flow` | one direction: socket, pipe, socket |
//! | `load` | what a flow has taken and not yet given |
//! | `mirror` | a copy of a flow, by `tee(2)` |
//! | `piece` | bytes on their way from a mirror to its file |
//! | `mirror_file`, `template` | files of mirrors, and their names |
//! | `pipes` | the pipes of a worker |
//! | `targets` | which target is next, which are down |
//! | `socket_options` | options of sockets |
//! | `introduction` | the PROXY protocol |

mod accepting;
mod append;
mod buffer;
mod connecting;
mod dial;
mod endpoint;
mod flow;
mod link;
mod mirror;
mod mirror_file;
pub mod options;
mod proxy_protocol;
pub mod session;
mod side;
mod socket_options;
mod stats;
mod targets;
mod template;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

pub use dial::Addresses;
pub use endpoint::{Endpoint, MAX_MIRRORS};
pub use mirror::MirrorReport;
pub use mirror_file::{MirrorFile, MirrorFiles};
pub use options::{
    Balance, Destination, Direction, MirrorDestination, MirrorOptions, Policy, ProxyProtocol, RelayMethod,
    RelayOptions, TargetRequest, TargetRequestId,
};
#[doc(hidden)]
pub use proxy_protocol::proxy_header;
pub use session::{LinkReport, Outcome, Session, Sink};
pub use stats::RelaySnapshot;

use crate::error::{Code, Error, Result};
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::thread_group::ThreadGroup;
use crate::io::NonBlocking;
use crate::net::Address;
use crate::net::listener::{self, Listen, Listener};
use worker::{Message, Shared, Worker};

/// A relay that runs. Dropping it closes it at once.
pub struct Relay {
    address: Option<Address>,
    shared: Arc<Shared>,
    mailboxes: Vec<Arc<Mailbox<Message>>>,
    /// The first worker accepts for all.
    one_accepts: bool,
    next_session: AtomicU64,
    threads: ThreadGroup,
}

impl Relay {
    /// Listens and relays.
    pub fn start(options: RelayOptions) -> Result<Self> {
        options.check()?;
        let workers = options.workers;
        let (listeners, address) = match &options.address {
            Some(address) => {
                let listen = Listen {
                    count: workers,
                    backlog: options.backlog,
                    reuse_port: false,
                    socket_mode: options.socket_mode,
                };
                let (listeners, address) = listener::open(address, &listen)?;
                for listener in &listeners {
                    socket_options::set(listener, options.keep_alive);
                }
                (listeners.into_iter().map(Some).collect(), Some(address))
            }
            None => ((0..workers).map(|_| None).collect::<Vec<_>>(), None),
        };
        let one_accepts = listeners.len() > 1 && listeners.iter().flatten().any(Listener::is_shared);
        let shared = Arc::new(Shared::new(options));
        let mut mailboxes = Vec::new();
        for _ in &listeners {
            mailboxes.push(Arc::new(Mailbox::new().map_err(|errno| Error::system("eventfd", errno))?));
        }
        let _ = shared.mailboxes.set(mailboxes.clone());
        let mut started = Vec::new();
        for (number, listener) in listeners.into_iter().enumerate() {
            // A socket that all have is watched by the first, which deals its connections out.
            let listener = listener.filter(|_| !one_accepts || number == 0);
            let peers = if one_accepts && number == 0 { mailboxes[1..].to_vec() } else { Vec::new() };
            started.push(Worker::new(number, shared.clone(), listener, mailboxes[number].clone(), peers)?);
        }
        let next_session = AtomicU64::new(0);
        let relay = Self { address, shared, mailboxes, one_accepts, next_session, threads: ThreadGroup::default() };
        for worker in started {
            let running = relay.threads.guard();
            crate::thread::spawn("zerosend-relay", move || {
                let _running = running;
                worker.run();
            })
            // The relay is dropped, and with it those workers that run already.
            .map_err(|error| Error::system("clone", Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN))))?;
        }
        Ok(relay)
    }

    /// Where it listens.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// Joins two sides, or a source and its sinks; `join.ended` is told when that is over. Returns a name for
    /// [`Relay::cancel_session`].
    pub fn start_session(&self, mut session: Session) -> Result<u64> {
        if session.sinks.len() > MAX_MIRRORS {
            let message = format!("there are {} sinks, but may be at most {MAX_MIRRORS}", session.sinks.len());
            return Err(Error::new(Code::InvalidArgument, message));
        }
        session.check_files()?;
        if session.target.is_none() {
            let null = zerosend_sys::open::dev_null().map_err(|errno| Error::system("open", errno))?;
            session.target = Some(NonBlocking::new(null)?);
        }
        let id = self.next_session.fetch_add(1, Ordering::Relaxed);
        self.mailbox_of(id).send(Message::StartSession(id, Box::new(session)));
        Ok(id)
    }

    /// Ends what was joined at once, with [`Outcome::Aborted`].
    pub fn cancel_session(&self, id: u64) {
        self.mailbox_of(id).send(Message::CancelSession(id));
    }

    fn mailbox_of(&self, session: u64) -> &Mailbox<Message> {
        &self.mailboxes[(session % self.mailboxes.len() as u64) as usize]
    }

    /// Where the connection that was asked about goes to: the first of these addresses that can be connected to. Without any
    /// it is reset. An answer that comes too late is ignored.
    pub fn resolve_target(&self, id: TargetRequestId, addresses: impl IntoIterator<Item = Address>) {
        if let Some(mailbox) = self.mailboxes.get(id.worker) {
            mailbox.send(Message::TargetResolved(id, addresses.into_iter().collect()));
        }
    }

    /// The name of a target has other addresses now. An empty list and a number that no target has are ignored.
    pub fn set_addresses(&self, target: usize, addresses: Vec<Address>) {
        if let Some(targets) = &self.shared.targets {
            targets.set_addresses(target, addresses);
        }
    }

    /// The name of a mirror that is a server has other addresses now. An empty list and the number of another mirror are ignored.
    pub fn set_mirror_addresses(&self, mirror: usize, addresses: Vec<Address>) {
        if let Some(MirrorOptions { to: MirrorDestination::Connection(list), .. }) =
            self.shared.options.mirrors.get(mirror)
        {
            list.set(addresses);
        }
    }

    /// Its mirrors, to be reopened by name: [`MirrorDestination::reopen`].
    pub fn mirrors(&self) -> Vec<MirrorDestination> {
        self.shared.options.mirrors.iter().map(|mirror| mirror.to.clone()).collect()
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
            client_failures: stats.client_failures.get(),
            target_failures: stats.target_failures.get(),
            mirror_failures: stats.mirror_failures.get(),
            forced_closes: stats.forced_closes.get(),
            degraded: stats.degraded.get(),
            bytes_up: stats.up.get(),
            bytes_down: stats.down.get(),
            mirrored: stats.mirrored.get(),
            dropped: stats.dropped.get(),
            panics: stats.panics.get(),
        }
    }

    /// Calls `callback` once all worker threads have exited: on the last of them, or at once on the calling thread.
    pub fn on_exit(&self, callback: impl FnOnce() + Send + 'static) {
        self.threads.on_exit(callback);
    }

    /// Accepts no more, lets connections end for as long as `drain`, and then cuts them.
    pub fn close(&self, drain: Duration) {
        let end = Instant::now() + drain;
        // The one that accepts for all passes it on, behind the connections that it has dealt out.
        let count = if self.one_accepts { 1 } else { self.mailboxes.len() };
        for mailbox in &self.mailboxes[..count] {
            mailbox.send(Message::Drain(end));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}
