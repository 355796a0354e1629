//! Which target is next, which are down, and how an address is connected to.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, UnixAddr, connect, socket,
};

use super::options::Balance;
use crate::server::Address;
use crate::sys::SysResult;

/// The targets of a relay, shared by its workers.
pub(super) struct Targets {
    list: Vec<Target>,
    balance: Balance,
    next: AtomicUsize,
    began: Instant,
    down_time: Duration,
}

struct Target {
    address: Address,
    connections: AtomicUsize,
    /// Milliseconds since the beginning.
    down_until: AtomicU64,
}

impl Targets {
    pub fn new(addresses: &[Address], balance: Balance, down_time: Duration) -> Self {
        let target = |address: &Address| Target {
            address: address.clone(),
            connections: AtomicUsize::new(0),
            down_until: AtomicU64::new(0),
        };
        let list = addresses.iter().map(target).collect();
        Self { list, balance, next: AtomicUsize::new(0), began: Instant::now(), down_time }
    }

    /// The target for a connection that has failed at those in `tried`; counts it there. Those that are down come last.
    pub fn pick(&self, tried: &[usize]) -> Option<usize> {
        let now = self.milliseconds();
        let count = self.list.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % count;
        let order = (0..count).map(|at| (first + at) % count).filter(|index| !tried.contains(index));
        let rank = |index: &usize| {
            let target = &self.list[*index];
            let is_down = target.down_until.load(Ordering::Relaxed) > now;
            let load = match self.balance {
                Balance::RoundRobin => 0,
                Balance::LeastConnections => target.connections.load(Ordering::Relaxed),
            };
            (is_down, load)
        };
        let picked = order.min_by_key(rank)?;
        self.list[picked].connections.fetch_add(1, Ordering::Relaxed);
        Some(picked)
    }

    /// A connection of this target has ended, or never came to be.
    pub fn leave(&self, index: usize) {
        self.list[index].connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// It did not answer.
    pub fn fail(&self, index: usize) {
        let until = self.milliseconds() + u64::try_from(self.down_time.as_millis()).unwrap_or(u64::MAX);
        self.list[index].down_until.store(until, Ordering::Relaxed);
    }

    /// It did.
    pub fn succeed(&self, index: usize) {
        self.list[index].down_until.store(0, Ordering::Relaxed);
    }

    pub fn address(&self, index: usize) -> &Address {
        &self.list[index].address
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Begins to connect: the socket becomes writable when that is decided.
pub(super) fn connect_to(address: &Address, keep_alive: Duration) -> SysResult<OwnedFd> {
    let (family, name): (_, Box<dyn SockaddrLike>) = match address {
        Address::Tcp(std::net::SocketAddr::V4(address)) => (AddressFamily::Inet, Box::new(SockaddrIn::from(*address))),
        Address::Tcp(std::net::SocketAddr::V6(address)) => {
            (AddressFamily::Inet6, Box::new(SockaddrIn6::from(*address)))
        }
        Address::Unix(path) => (AddressFamily::Unix, Box::new(UnixAddr::new(path)?)),
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    super::tuning::prepare(&fd, keep_alive);
    match connect(fd.as_raw_fd(), name.as_ref()) {
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(fd),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three(balance: Balance) -> Targets {
        let addresses: Vec<_> = (1..4).map(|port| Address::Tcp(([127, 0, 0, 1], port).into())).collect();
        Targets::new(&addresses, balance, Duration::from_secs(60))
    }

    #[test]
    fn one_after_the_other_and_those_that_are_down_last() {
        let targets = three(Balance::RoundRobin);
        let picked: Vec<_> = (0..4).filter_map(|_| targets.pick(&[])).collect();
        assert_eq!(picked, [0, 1, 2, 0]);
        targets.fail(1);
        let picked: Vec<_> = (0..6).filter_map(|_| targets.pick(&[])).collect();
        assert!(!picked.contains(&1), "{picked:?}");
        assert_eq!(targets.pick(&[0, 2]), Some(1), "better than none");
        assert_eq!(targets.pick(&[0, 1, 2]), None);
        targets.succeed(1);
        assert!((0..3).filter_map(|_| targets.pick(&[])).any(|index| index == 1));
    }

    #[test]
    fn fewest_connections_first() {
        let targets = three(Balance::LeastConnections);
        let picked: Vec<_> = (0..3).filter_map(|_| targets.pick(&[])).collect();
        assert_eq!(picked, [0, 1, 2]);
        targets.leave(1);
        assert_eq!(targets.pick(&[]), Some(1));
    }
}
