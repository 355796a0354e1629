//! Connecting to one of the addresses of a name, in turn, within a time limit. A failure that is local and may pass, such as a
//! full backlog or a lack of descriptors, is retried. A connection of a socket to itself is refused.
//!
//! Used for targets (`connecting.rs`) and for mirrors (`mirror_sink.rs`).

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, connect, socket};

use super::descriptors::{DescriptorReserve, DescriptorWait};
use super::side::Side;
use super::socket_options;
use crate::io::pipe_pool::PipePool;
use crate::net::{Address, unix_name};
use zerosend_sys::SysResult;

/// Time until a retry after a shortage that no event ends: initially and, doubled each time, at most.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(100)];
/// Time until a retry after a lack of descriptors.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(10);
/// Minimum time for one of several addresses, as far as the connect timeout allows it.
const MIN_SHARE: Duration = Duration::from_secs(2);
/// Connections of a socket to itself after which an address counts as refused.
const MAX_SELF_CONNECTS: u32 = 3;

/// Resources of the worker that connecting may use.
pub(super) struct ConnectContext<'a> {
    pub keep_alive: Duration,
    /// The reserve of the link, from which a descriptor is released for each socket.
    pub reserve: &'a mut Option<DescriptorReserve>,
    /// Their idle pipes are closed when descriptors are missing.
    pub pools: [&'a mut PipePool; 2],
    /// See [`DescriptorWait`].
    pub waiting: &'a Arc<AtomicUsize>,
}

/// Result of [`Dial::next`].
pub(super) enum Step {
    /// This socket is connecting.
    Connecting(OwnedFd),
    /// Wait until [`Dial::deadline`].
    Wait,
    /// No address could be connected to.
    Failed(Errno),
}

/// State of a connecting socket after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectStatus {
    Connected,
    /// Call [`Dial::next`].
    Failed,
    Pending,
}

/// Which deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// The one for all addresses.
    All,
    /// The pause before a retry, or the one for the current address: call [`Dial::next`].
    Step,
    None,
}

/// An attempt to connect to one of several addresses.
pub(super) struct Dial {
    addresses: Arc<[Address]>,
    /// Index of the address that is next or being connected to.
    at: usize,
    /// Start of the time limit for all addresses.
    start: Instant,
    /// Start of the time limit for the current address.
    address_start: Instant,
    /// When to retry after a shortage.
    retry_at: Option<Instant>,
    pause: Duration,
    /// The shortage because of which an address has failed in this round.
    shortage: Option<Errno>,
    last_error: Errno,
    waiting: Option<DescriptorWait>,
    self_connects: u32,
}

impl Dial {
    pub fn new(addresses: Arc<[Address]>, now: Instant) -> Self {
        Self {
            addresses,
            at: 0,
            start: now,
            address_start: now,
            retry_at: None,
            pause: RETRY_PAUSES[0],
            shortage: None,
            last_error: Errno::EDESTADDRREQ,
            waiting: None,
            self_connects: 0,
        }
    }

    /// The address that is being connected to.
    pub fn address(&self) -> Option<&Address> {
        self.addresses.get(self.at)
    }

    /// Whether an address has failed in this round because of a shortage on this machine rather than because of the peer.
    pub fn has_shortage(&self) -> bool {
        self.shortage.is_some()
    }

    /// Stops waiting for descriptors, so that others get them.
    pub fn stop_waiting(&mut self) {
        self.waiting = None;
    }

    /// When [`Dial::expire`] is due. `timeout`: for all addresses; zero for none.
    pub fn deadline(&self, timeout: Duration) -> Option<Instant> {
        if self.lacks_descriptors() {
            return self.retry_at;
        }
        let all = (!timeout.is_zero()).then(|| self.start + timeout);
        let left = self.addresses.len().saturating_sub(self.at);
        let address = all.filter(|_| left > 1 && self.retry_at.is_none()).map(|end| {
            let rest = end.saturating_duration_since(self.address_start);
            let share = (rest / left as u32).max(MIN_SHARE.min(rest / 2));
            self.address_start + share
        });
        [all, address, self.retry_at].into_iter().flatten().min()
    }

    /// Checks which deadline has passed. Skips an address whose time is over.
    pub fn expire(&mut self, timeout: Duration, now: Instant) -> Expired {
        if self.deadline(timeout).is_none_or(|deadline| deadline > now) {
            return Expired::None;
        }
        if !self.lacks_descriptors() && !timeout.is_zero() && self.start + timeout <= now {
            return Expired::All;
        }
        if self.retry_at.is_none() {
            self.skip_address(Errno::ETIMEDOUT);
        }
        Expired::Step
    }

    /// Starts to connect to the next address that does not fail at once. The caller has closed the previous socket.
    pub fn next(&mut self, context: &mut ConnectContext<'_>) -> Step {
        (self.retry_at, self.waiting) = (None, None);
        loop {
            let now = Instant::now();
            let Some(address) = self.addresses.get(self.at) else {
                if self.shortage.is_none() {
                    return Step::Failed(self.last_error);
                }
                self.at = 0;
                if self.lacks_descriptors() {
                    // Descriptors that become free are used for this connection before others are accepted.
                    self.waiting = Some(DescriptorWait::new(context.waiting));
                    self.retry_at = Some(now + DESCRIPTOR_PAUSE);
                } else {
                    self.retry_at = Some(now + self.pause);
                    self.pause = (self.pause * 2).min(RETRY_PAUSES[1]);
                }
                return Step::Wait;
            };
            if self.at == 0 && self.shortage.take().is_some_and(is_out_of_descriptors) {
                // The time without descriptors does not count towards the connect timeout.
                self.start = now;
            }
            self.address_start = now;
            if let Some(reserve) = context.reserve {
                reserve.release_one();
            }
            match connect_to(address, context.keep_alive) {
                Ok(socket) => return Step::Connecting(socket),
                Err(errno) => {
                    if is_shortage(errno) {
                        self.shortage = Some(errno);
                    }
                    if is_out_of_descriptors(errno) {
                        for pool in &mut context.pools {
                            pool.close_idle();
                        }
                    }
                    self.skip_address(errno);
                }
            }
        }
    }

    /// Handles an event of the connecting socket.
    pub fn on_event(&mut self, side: &Side, events: EpollFlags) -> ConnectStatus {
        let errno = match side.take_error() {
            // A socket that has not started to connect reports EPOLLHUP too, so that flag is ignored.
            Ok(()) if !events.contains(EpollFlags::EPOLLERR) => {
                if !events.contains(EpollFlags::EPOLLOUT) {
                    return ConnectStatus::Pending;
                }
                if !self.is_self_connect(side) {
                    return ConnectStatus::Connected;
                }
                // A reset frees the port at once.
                side.reset_on_close();
                self.self_connects += 1;
                if self.self_connects < MAX_SELF_CONNECTS {
                    return ConnectStatus::Failed;
                }
                Errno::ECONNREFUSED
            }
            Ok(()) => Errno::ECONNREFUSED,
            Err(errno) => errno,
        };
        self.skip_address(errno);
        ConnectStatus::Failed
    }

    /// Whether the socket is connected to itself: nothing listens on the port, and the kernel chose that port for this end, which
    /// made a simultaneous open (RFC 9293 section 3.5) of one socket.
    fn is_self_connect(&self, side: &Side) -> bool {
        matches!(self.address(), Some(Address::Tcp(address)) if side.local_address() == Some(*address))
    }

    fn skip_address(&mut self, errno: Errno) {
        self.last_error = errno;
        self.at += 1;
        self.self_connects = 0;
    }

    fn lacks_descriptors(&self) -> bool {
        self.shortage.is_some_and(is_out_of_descriptors)
    }
}

/// Starts to connect. The socket becomes writable when the result is known.
fn connect_to(address: &Address, keep_alive: Duration) -> SysResult<OwnedFd> {
    let (family, name): (_, Box<dyn SockaddrLike>) = match address {
        Address::Tcp(std::net::SocketAddr::V4(address)) => (AddressFamily::Inet, Box::new(SockaddrIn::from(*address))),
        Address::Tcp(std::net::SocketAddr::V6(address)) => {
            (AddressFamily::Inet6, Box::new(SockaddrIn6::from(*address)))
        }
        Address::Unix(path) => (AddressFamily::Unix, Box::new(unix_name(path).map_err(|_| Errno::EINVAL)?)),
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    socket_options::set(&fd, keep_alive);
    match connect(fd.as_raw_fd(), name.as_ref()) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        // connect(2): after EINTR the connection is established asynchronously, except for Unix sockets.
        Err(Errno::EINTR) if family != AddressFamily::Unix => Ok(fd),
        Err(errno) => Err(errno),
    }
}

/// Whether connecting has failed for a reason that may pass and is not the peer's fault: its backlog is full (Unix sockets), or
/// this machine lacks a port, memory or a descriptor.
fn is_shortage(errno: Errno) -> bool {
    is_out_of_descriptors(errno)
        || matches!(errno, Errno::EAGAIN | Errno::EINTR | Errno::EADDRNOTAVAIL | Errno::ENOBUFS | Errno::ENOMEM)
}

fn is_out_of_descriptors(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE)
}
