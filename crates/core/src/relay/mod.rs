//! Relays: move bytes between sockets, through pipes of the kernel, on worker threads.
//!
//! From the bottom up:
//!
//! | module | subject |
//! |---|---|
//! | [`options`], [`session`] | the options of a relay; sessions and reports |
//! | `endpoint`, `message`, `shared`, `stats` | types, messages and counters that workers share |
//! | `addresses`, `targets` | the addresses of a name; which target is next, which are down |
//! | `descriptors` | reserved descriptors, and waiting for free ones |
//! | `side`, `socket_options` | a descriptor of a link with its readiness; options of sockets |
//! | `dial` | connecting to one of the addresses of a name |
//! | `proxy_protocol` | the header of the PROXY protocol |
//! | `buffer`, `flow`, `pump` | the bytes of one direction; moving them; what a turn may use |
//! | `mirror`, `mirror_sink` | a copy of a flow by `tee(2)`; what it is written to |
//! | `append`, `append_backlog` | appending to files of mirrors |
//! | `mirror_file`, `link_file`, `template` | a file for all connections; a file for each; its name |
//! | `link`, `link_state` | a client, its target, their flows and mirrors |
//! | `worker` | a thread with its event loop and links |
//! | `admission`, `connecting`, `mirroring`, `deadlines`, `closing` | what a worker does with a link, from its start to its end |

mod addresses;
mod admission;
mod append;
mod append_backlog;
mod buffer;
mod closing;
mod connecting;
mod deadlines;
mod descriptors;
mod dial;
mod endpoint;
mod flow;
mod link;
mod link_file;
mod link_state;
mod message;
mod mirror;
mod mirror_file;
mod mirror_sink;
mod mirroring;
pub mod options;
mod proxy_protocol;
mod pump;
pub mod session;
mod shared;
mod side;
mod socket_options;
mod stats;
mod targets;
mod template;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use addresses::Addresses;
pub use endpoint::{Endpoint, MAX_MIRRORS};
pub use link_file::MirrorFiles;
pub use mirror_file::MirrorFile;
pub use options::{
    Balance, Destination, Direction, MirrorDestination, MirrorOptions, Policy, ProxyProtocol, RelayMethod,
    RelayOptions, TargetRequest, TargetRequestId,
};
#[doc(hidden)]
pub use proxy_protocol::proxy_header;
pub use session::{LinkReport, MirrorReport, Outcome, Session, SessionMirror};
pub use stats::RelaySnapshot;

use crate::error::{Code, Error, Result};
use crate::event_loop::drain_deadline;
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::thread_group::ThreadGroup;
use crate::io::NonBlocking;
use crate::net::Address;
use crate::net::acceptor::Acceptor;
use crate::net::listener::{self, Listen};
use message::Message;
use shared::Shared;
use worker::Worker;

/// A running relay. Dropping it closes it at once.
pub struct Relay {
    address: Option<Address>,
    shared: Arc<Shared>,
    mailboxes: Vec<Arc<Mailbox<Message>>>,
    next_session: AtomicU64,
    threads: ThreadGroup,
}

impl Relay {
    /// Starts the workers, which listen at the address of the options.
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
                (listeners, Some(address))
            }
            None => (Vec::new(), None),
        };
        let shared = Arc::new(Shared::new(options));
        let mailboxes: Vec<_> = (0..workers).map(|_| Mailbox::new().map(Arc::new)).collect::<Result<_>>()?;
        let _ = shared.mailboxes.set(mailboxes.clone());
        let acceptors = Acceptor::for_workers(listeners, &mailboxes, shared.options.backlog);
        let mut started = Vec::new();
        for (number, (acceptor, mailbox)) in acceptors.into_iter().zip(&mailboxes).enumerate() {
            started.push(Worker::new(number, shared.clone(), acceptor, mailbox.clone())?);
        }
        let next_session = AtomicU64::new(0);
        let relay = Self { address, shared, mailboxes, next_session, threads: ThreadGroup::default() };
        for worker in started {
            // An error drops the relay, which stops the workers that are already running.
            relay.threads.spawn("zerosend-relay", move || worker.run())?;
        }
        Ok(relay)
    }

    /// The address it listens at.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// Starts a session. Returns its id, for [`Relay::cancel_session`].
    pub fn start_session(&self, mut session: Session) -> Result<u64> {
        if session.mirrors.len() > MAX_MIRRORS {
            let message = format!("too many sinks: {}; use {MAX_MIRRORS} at most", session.mirrors.len());
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

    /// Closes a session at once, with [`Outcome::Aborted`].
    pub fn cancel_session(&self, id: u64) {
        self.mailbox_of(id).send(Message::CancelSession(id));
    }

    fn mailbox_of(&self, session: u64) -> &Mailbox<Message> {
        &self.mailboxes[(session % self.mailboxes.len() as u64) as usize]
    }

    /// Sets the addresses of the target of a connection: it is connected to the first that accepts it, or reset without any. Ignores
    /// a request that is no longer open.
    pub fn resolve_target(&self, id: TargetRequestId, addresses: impl IntoIterator<Item = Address>) {
        if let Some(mailbox) = self.mailboxes.get(id.worker) {
            mailbox.send(Message::TargetResolved(id, addresses.into_iter().collect()));
        }
    }

    /// Replaces the addresses of a target. Ignores an empty list and an unknown index.
    pub fn set_addresses(&self, target: usize, addresses: Vec<Address>) {
        if let Some(targets) = &self.shared.targets {
            targets.set_addresses(target, addresses);
        }
    }

    /// Replaces the addresses of a mirror that is a server. Ignores an empty list and the index of another mirror.
    pub fn set_mirror_addresses(&self, mirror: usize, addresses: Vec<Address>) {
        if let Some(MirrorOptions { to: MirrorDestination::Server(list), .. }) = self.shared.options.mirrors.get(mirror)
        {
            list.set(addresses);
        }
    }

    /// Its mirrors, for [`MirrorDestination::reopen`].
    pub fn mirrors(&self) -> Vec<MirrorDestination> {
        self.shared.options.mirrors.iter().map(|mirror| mirror.to.clone()).collect()
    }

    /// The counters.
    pub fn stats(&self) -> RelaySnapshot {
        let connections = self.shared.connections.load(Ordering::Relaxed) as u64;
        RelaySnapshot::sum(connections, &self.shared.counters)
    }

    /// Calls `callback` once all worker threads have exited: on the last of them, or at once on the calling thread.
    pub fn on_exit(&self, callback: impl FnOnce() + Send + 'static) {
        self.threads.on_exit(callback);
    }

    /// Stops accepting, waits up to `drain` for open connections to end, and closes the rest by force.
    pub fn close(&self, drain: Duration) {
        let deadline = drain_deadline(drain);
        for mailbox in &self.mailboxes {
            mailbox.send(Message::Drain(deadline));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}
