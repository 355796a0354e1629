//! Which target is next, which are down, and how an address is connected to.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, connect, socket};

use super::options::Balance;
use crate::server::{Address, unix_name};
use crate::sys::SysResult;

/// The targets of a relay, shared by its workers.
pub(super) struct Targets {
    list: Vec<Target>,
    balance: Balance,
    picks: AtomicU64,
    began: Instant,
    down_time: Duration,
}

struct Target {
    /// Those of its name, in the order in which they are tried.
    addresses: RwLock<Arc<[Address]>>,
    connections: AtomicUsize,
    /// Number of its latest pick.
    picked: AtomicU64,
    /// Milliseconds since the beginning.
    down_until: AtomicU64,
}

impl Targets {
    pub fn new(list: &[Vec<Address>], balance: Balance, down_time: Duration) -> Self {
        let target = |addresses: &Vec<Address>| Target {
            addresses: RwLock::new(addresses.as_slice().into()),
            connections: AtomicUsize::new(0),
            picked: AtomicU64::new(0),
            down_until: AtomicU64::new(0),
        };
        let list = list.iter().map(target).collect();
        Self { list, balance, picks: AtomicU64::new(1), began: Instant::now(), down_time }
    }

    /// The target for a connection that has failed at those in `tried`; counts it there. Those that are down come last.
    /// Of equals, the one that was picked the longest time ago: connections that a target does not take are spread over
    /// all others, and do not fall to its neighbour.
    pub fn pick(&self, tried: &[usize]) -> Option<usize> {
        let now = self.milliseconds();
        loop {
            let rank = |index: &usize| {
                let target = &self.list[*index];
                let is_down = target.down_until.load(Ordering::Relaxed) > now;
                let load = match self.balance {
                    Balance::RoundRobin => 0,
                    Balance::LeastConnections => target.connections.load(Ordering::Relaxed),
                };
                (is_down, load, target.picked.load(Ordering::Relaxed))
            };
            let candidates = (0..self.list.len()).filter(|index| !tried.contains(index));
            let ((.., before), picked) = candidates.map(|index| (rank(&index), index)).min()?;
            let target = &self.list[picked];
            let number = self.picks.fetch_add(1, Ordering::Relaxed);
            // Another worker may have picked it meanwhile.
            if target.picked.compare_exchange(before, number, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                target.connections.fetch_add(1, Ordering::Relaxed);
                return Some(picked);
            }
        }
    }

    /// A connection of this target has ended, or never came to be.
    pub fn release(&self, index: usize) {
        self.list[index].connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// None of its addresses could be connected to.
    pub fn mark_down(&self, index: usize) {
        let down_time = u64::try_from(self.down_time.as_millis()).unwrap_or(u64::MAX);
        self.list[index].down_until.store(self.milliseconds().saturating_add(down_time), Ordering::Relaxed);
    }

    /// One of its addresses was connected to: it is tried first from now on.
    pub fn mark_up(&self, index: usize, reached: &Address) {
        self.list[index].down_until.store(0, Ordering::Relaxed);
        let addresses = self.addresses(index);
        if addresses.first() != Some(reached)
            && let Some(at) = addresses.iter().position(|address| address == reached)
        {
            let mut order = addresses.to_vec();
            order.rotate_left(at);
            self.store(index, order);
        }
    }

    /// The addresses of a target, in the order in which they are tried.
    pub fn addresses(&self, index: usize) -> Arc<[Address]> {
        self.list[index].addresses.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The name of a target has these addresses now. The one that was reached last stays in front.
    pub fn set_addresses(&self, index: usize, mut addresses: Vec<Address>) {
        if index >= self.list.len() || addresses.is_empty() {
            return;
        }
        let current = self.addresses(index).first().cloned();
        let at = addresses.iter().position(|address| Some(address) == current.as_ref()).unwrap_or(0);
        addresses.rotate_left(at);
        self.store(index, addresses);
    }

    fn store(&self, index: usize, addresses: Vec<Address>) {
        *self.list[index].addresses.write().unwrap_or_else(PoisonError::into_inner) = addresses.into();
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Begins to connect: the socket becomes writable when that is decided.
pub(super) fn connect_to(address: &Address, keep_alive: Duration) -> SysResult<OwnedFd> {
    let (family, name): (_, Box<dyn SockaddrLike>) = match address {
        Address::Tcp(SocketAddr::V4(address)) => (AddressFamily::Inet, Box::new(SockaddrIn::from(*address))),
        Address::Tcp(SocketAddr::V6(address)) => (AddressFamily::Inet6, Box::new(SockaddrIn6::from(*address))),
        Address::Unix(path) => (AddressFamily::Unix, Box::new(unix_name(path).map_err(|_| Errno::EINVAL)?)),
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    super::tuning::prepare(&fd, keep_alive);
    match connect(fd.as_raw_fd(), name.as_ref()) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        // connect(2): an interrupted one goes on, except on a Unix socket, which has no state between.
        Err(Errno::EINTR) if family != AddressFamily::Unix => Ok(fd),
        Err(errno) => Err(errno),
    }
}

/// Whether connecting has failed for a reason that passes and that is not the target's: its backlog is full (Unix sockets), or
/// this machine has no port, memory or descriptor to spare.
pub(super) fn is_shortage(errno: Errno) -> bool {
    is_out_of_descriptors(errno)
        || matches!(errno, Errno::EAGAIN | Errno::EINTR | Errno::EADDRNOTAVAIL | Errno::ENOBUFS | Errno::ENOMEM)
}

pub(super) fn is_out_of_descriptors(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(ports: std::ops::Range<u16>) -> Vec<Address> {
        ports.map(|port| Address::Tcp(([127, 0, 0, 1], port).into())).collect()
    }

    fn targets(count: u16, balance: Balance) -> Targets {
        let list: Vec<_> = (1..=count).map(|port| addresses(port..port + 1)).collect();
        Targets::new(&list, balance, Duration::from_secs(60))
    }

    #[test]
    fn one_after_the_other_and_those_that_are_down_last() {
        let targets = targets(3, Balance::RoundRobin);
        let picked: Vec<_> = (0..4).filter_map(|_| targets.pick(&[])).collect();
        assert_eq!(picked, [0, 1, 2, 0]);
        targets.mark_down(1);
        let picked: Vec<_> = (0..6).filter_map(|_| targets.pick(&[])).collect();
        assert!(!picked.contains(&1), "{picked:?}");
        assert_eq!(targets.pick(&[0, 2]), Some(1), "better than none");
        assert_eq!(targets.pick(&[0, 1, 2]), None);
        targets.mark_up(1, &addresses(2..3)[0]);
        assert!((0..3).filter_map(|_| targets.pick(&[])).any(|index| index == 1));
    }

    #[test]
    fn fewest_connections_first() {
        let targets = targets(3, Balance::LeastConnections);
        let picked: Vec<_> = (0..3).filter_map(|_| targets.pick(&[])).collect();
        assert_eq!(picked, [0, 1, 2]);
        targets.release(1);
        assert_eq!(targets.pick(&[]), Some(1));
    }

    #[test]
    fn the_share_of_a_dead_target_is_spread_evenly() {
        for balance in [Balance::RoundRobin, Balance::LeastConnections] {
            for closes_at_once in [true, false] {
                let targets = targets(4, balance);
                let mut served = [0; 4];
                for _ in 0..60 {
                    let mut tried = Vec::new();
                    loop {
                        let picked = targets.pick(&tried).expect("a target");
                        tried.push(picked);
                        if picked == 1 {
                            targets.release(1);
                            targets.mark_down(1);
                            continue;
                        }
                        if closes_at_once {
                            targets.release(picked);
                        }
                        served[picked] += 1;
                        break;
                    }
                }
                assert_eq!(served, [20, 0, 20, 20], "{balance:?}, {closes_at_once}");
            }
        }
    }

    #[test]
    fn the_address_that_was_reached_is_tried_first_and_stays_so_when_the_name_is_resolved_again() {
        let list = addresses(1..4);
        let targets = Targets::new(std::slice::from_ref(&list), Balance::RoundRobin, Duration::ZERO);
        targets.mark_up(0, &list[1]);
        assert_eq!(*targets.addresses(0), [list[1].clone(), list[2].clone(), list[0].clone()]);
        targets.set_addresses(0, addresses(2..5));
        assert_eq!(*targets.addresses(0), addresses(2..5));
        targets.set_addresses(0, addresses(7..9));
        targets.set_addresses(0, Vec::new());
        assert_eq!(*targets.addresses(0), addresses(7..9));
    }
}
