//! Connecting to a name: its addresses in turn within a time limit, what fails for a passing reason again, and never to itself.
//!
//! Targets and mirrors connect in the same way; see `connecting.rs` and `mirror.rs`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, connect, socket};

use super::accepting::DescriptorReserve;
use super::side::Side;
use crate::io::pipe_pool::PipePool;
use crate::net::{Address, unix_name};
use zerosend_sys::SysResult;

/// Before another try where there is nothing to wait for: at first, doubled each time, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(100)];
/// Before another try where there was no descriptor.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(10);
/// An address of several has this long, as far as the connect timeout allows it, or its share of the timeout if that is more.
const MIN_SHARE: Duration = Duration::from_secs(2);
/// Connections to itself that one attempt may meet at one address.
const MAX_SELF_CONNECTS: u32 = 3;

/// The addresses of a name, in the order in which they are tried.
pub struct Addresses(RwLock<Arc<[Address]>>);

impl Addresses {
    /// These, the first one first.
    pub fn new(addresses: &[Address]) -> Self {
        Self(RwLock::new(addresses.into()))
    }

    /// Those of now.
    pub fn get(&self) -> Arc<[Address]> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The name has these addresses now. The one that was reached last stays in front. An empty list is ignored.
    pub fn set(&self, mut addresses: Vec<Address>) {
        if addresses.is_empty() {
            return;
        }
        let current = self.get().first().cloned();
        let at = addresses.iter().position(|address| Some(address) == current.as_ref()).unwrap_or(0);
        addresses.rotate_left(at);
        self.store(addresses);
    }

    /// This address was connected to: it is tried first from now on.
    pub(super) fn prefer(&self, reached: &Address) {
        let addresses = self.get();
        if addresses.first() != Some(reached)
            && let Some(at) = addresses.iter().position(|address| address == reached)
        {
            let mut order = addresses.to_vec();
            order.rotate_left(at);
            self.store(order);
        }
    }

    fn store(&self, addresses: Vec<Address>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addresses.into();
    }
}

/// Counts a link or mirror that waits for descriptors, for as long as this exists; meanwhile no connection is accepted.
pub(super) struct DescriptorWait(Arc<AtomicUsize>);

impl DescriptorWait {
    pub fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for DescriptorWait {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a dial may use of its worker.
pub(super) struct ConnectContext<'a> {
    pub keep_alive: Duration,
    /// Descriptors set aside for the link.
    pub reserve: &'a mut Option<DescriptorReserve>,
    /// Pools whose idle pipes are given up for descriptors.
    pub pools: [&'a mut PipePool; 2],
    /// See [`DescriptorWait`].
    pub waiting: &'a Arc<AtomicUsize>,
}

/// What comes next.
pub(super) enum Step {
    /// A socket is connecting.
    Connecting(OwnedFd),
    /// Nothing before [`Dial::deadline`].
    Wait,
    /// No address can be connected to.
    Failed(Errno),
}

/// What an event says of a socket that is connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectStatus {
    Connected,
    /// [`Dial::next`] goes on with the next try.
    Failed,
    Pending,
}

/// Which time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// The time for all addresses.
    All,
    /// The pause before the next try, or the time for the current address: [`Dial::next`] goes on.
    Step,
    Nothing,
}

/// How far connecting to a name has come.
pub(super) struct Dial {
    addresses: Arc<[Address]>,
    /// Which of them is next, or being connected to.
    at: usize,
    /// When the time for all of them began.
    since: Instant,
    /// When the time for this address began.
    address_since: Instant,
    /// When to try again.
    retry: Option<Instant>,
    pause: Duration,
    /// In this round one address has failed for want of something that may come back.
    shortage: Option<Errno>,
    /// The last failure.
    failure: Errno,
    waiting: Option<DescriptorWait>,
    self_connects: u32,
}

impl Dial {
    pub fn new(addresses: Arc<[Address]>, now: Instant) -> Self {
        Self {
            addresses,
            at: 0,
            since: now,
            address_since: now,
            retry: None,
            pause: PAUSES[0],
            shortage: None,
            failure: Errno::EDESTADDRREQ,
            waiting: None,
            self_connects: 0,
        }
    }

    /// The address that is being connected to.
    pub fn address(&self) -> Option<&Address> {
        self.addresses.get(self.at)
    }

    /// In the current round an address has failed for a reason that passes and that is not the peer's.
    pub fn is_short(&self) -> bool {
        self.shortage.is_some()
    }

    /// Others may have the descriptors that it has waited for.
    pub fn stop_waiting(&mut self) {
        self.waiting = None;
    }

    /// When something is to be done unless there is an answer before.
    pub fn deadline(&self, limit: Duration) -> Option<Instant> {
        if self.lacks_descriptors() {
            return self.retry;
        }
        let all = (!limit.is_zero()).then(|| self.since + limit);
        let left = self.addresses.len().saturating_sub(self.at);
        let address = all.filter(|_| left > 1 && self.retry.is_none()).map(|end| {
            let rest = end.saturating_duration_since(self.address_since);
            let share = (rest / left as u32).max(MIN_SHARE.min(rest / 2));
            self.address_since + share
        });
        [all, address, self.retry].into_iter().flatten().min()
    }

    /// Which moment of [`Dial::deadline`] has come. An address whose time is over is passed over.
    pub fn expire(&mut self, limit: Duration, now: Instant) -> Expired {
        if self.deadline(limit).is_none_or(|deadline| deadline > now) {
            return Expired::Nothing;
        }
        if !self.lacks_descriptors() && !limit.is_zero() && self.since + limit <= now {
            return Expired::All;
        }
        if self.retry.is_none() {
            self.pass(Errno::ETIMEDOUT);
        }
        Expired::Step
    }

    /// Begins to connect to the next address that does not refuse at once. The socket of the try before is closed.
    pub fn next(&mut self, context: &mut ConnectContext<'_>) -> Step {
        (self.retry, self.waiting) = (None, None);
        loop {
            let now = Instant::now();
            let Some(address) = self.addresses.get(self.at) else {
                if self.shortage.is_none() {
                    return Step::Failed(self.failure);
                }
                self.at = 0;
                if self.lacks_descriptors() {
                    // Before others are accepted, this one gets what is given up.
                    self.waiting = Some(DescriptorWait::new(context.waiting));
                    self.retry = Some(now + DESCRIPTOR_PAUSE);
                } else {
                    self.retry = Some(now + self.pause);
                    self.pause = (self.pause * 2).min(PAUSES[1]);
                }
                return Step::Wait;
            };
            if self.at == 0 && self.shortage.take().is_some_and(is_out_of_descriptors) {
                // How long descriptors are missing is not the peer's time.
                self.since = now;
            }
            self.address_since = now;
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
                        context.pools.iter_mut().for_each(|pool| pool.close_idle());
                    }
                    self.pass(errno);
                }
            }
        }
    }

    /// Takes note of an event of the socket that is connecting.
    pub fn check(&mut self, side: &Side, events: EpollFlags) -> ConnectStatus {
        let errno = match side.failure() {
            // A socket that has not begun to connect says HUP as well; only the answer counts.
            Ok(()) if !events.contains(EpollFlags::EPOLLERR) => {
                if !events.contains(EpollFlags::EPOLLOUT) {
                    return ConnectStatus::Pending;
                }
                if !self.is_own_end(side) {
                    return ConnectStatus::Connected;
                }
                // A reset frees the port at once.
                side.reset();
                self.self_connects += 1;
                if self.self_connects < MAX_SELF_CONNECTS {
                    return ConnectStatus::Failed;
                }
                Errno::ECONNREFUSED
            }
            Ok(()) => Errno::ECONNREFUSED,
            Err(errno) => errno,
        };
        self.pass(errno);
        ConnectStatus::Failed
    }

    /// Whether a socket is connected to itself: nothing listens there, and the port that the kernel chose for this end was the
    /// very one, which is TCP's simultaneous open with itself.
    fn is_own_end(&self, side: &Side) -> bool {
        matches!(self.address(), Some(Address::Tcp(address)) if side.own_address() == Some(*address))
    }

    /// Goes on to the next address.
    fn pass(&mut self, errno: Errno) {
        self.failure = errno;
        self.at += 1;
        self.self_connects = 0;
    }

    fn lacks_descriptors(&self) -> bool {
        self.shortage.is_some_and(is_out_of_descriptors)
    }
}

/// Begins to connect: the socket becomes writable when that is decided.
fn connect_to(address: &Address, keep_alive: Duration) -> SysResult<OwnedFd> {
    let (family, name): (_, Box<dyn SockaddrLike>) = match address {
        Address::Tcp(std::net::SocketAddr::V4(address)) => (AddressFamily::Inet, Box::new(SockaddrIn::from(*address))),
        Address::Tcp(std::net::SocketAddr::V6(address)) => {
            (AddressFamily::Inet6, Box::new(SockaddrIn6::from(*address)))
        }
        Address::Unix(path) => (AddressFamily::Unix, Box::new(unix_name(path).map_err(|_| Errno::EINVAL)?)),
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    super::socket_options::set(&fd, keep_alive);
    match connect(fd.as_raw_fd(), name.as_ref()) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        // connect(2): an interrupted one goes on, except on a Unix socket, which has no state between.
        Err(Errno::EINTR) if family != AddressFamily::Unix => Ok(fd),
        Err(errno) => Err(errno),
    }
}

/// Whether connecting has failed for a reason that passes and that is not the peer's: its backlog is full (Unix sockets), or
/// this machine has no port, memory or descriptor to spare.
fn is_shortage(errno: Errno) -> bool {
    is_out_of_descriptors(errno)
        || matches!(errno, Errno::EAGAIN | Errno::EINTR | Errno::EADDRNOTAVAIL | Errno::ENOBUFS | Errno::ENOMEM)
}

fn is_out_of_descriptors(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_was_reached_is_tried_first_and_stays_so_when_the_name_is_resolved_again() {
        let list = |ports: std::ops::Range<u16>| -> Vec<_> {
            ports.map(|port| Address::Tcp(([127, 0, 0, 1], port).into())).collect()
        };
        let first = list(1..4);
        let addresses = Addresses::new(&first);
        addresses.prefer(&first[1]);
        assert_eq!(*addresses.get(), [first[1].clone(), first[2].clone(), first[0].clone()]);
        addresses.set(list(2..5));
        assert_eq!(*addresses.get(), list(2..5));
        addresses.set(list(7..9));
        addresses.set(Vec::new());
        assert_eq!(*addresses.get(), list(7..9));
    }
}
