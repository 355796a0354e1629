//! The targets of a relay: which one is next, and which are down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::addresses::Addresses;
use super::options::Balance;
use crate::net::Address;

/// The targets of a relay, shared by its workers.
pub(super) struct Targets {
    list: Vec<Target>,
    balance: Balance,
    /// Number of the next pick.
    next_pick: AtomicU64,
    start: Instant,
    down_time: Duration,
}

struct Target {
    addresses: Addresses,
    connections: AtomicUsize,
    /// Number of its latest pick.
    last_pick: AtomicU64,
    /// Milliseconds after the start; 0 while it is up.
    down_until: AtomicU64,
}

impl Targets {
    pub fn new(list: &[Vec<Address>], balance: Balance, down_time: Duration) -> Self {
        let target = |addresses: &Vec<Address>| Target {
            addresses: Addresses::new(addresses),
            connections: AtomicUsize::new(0),
            last_pick: AtomicU64::new(0),
            down_until: AtomicU64::new(0),
        };
        let list = list.iter().map(target).collect();
        Self { list, balance, next_pick: AtomicU64::new(1), start: Instant::now(), down_time }
    }

    /// Picks the target for a connection that has already failed at those in `tried`, and counts the connection there.
    /// Targets that are down are picked last. Of equal ones the least recently picked is next, which spreads the share of a
    /// target that is down over all others instead of giving it to its successor.
    pub fn pick(&self, tried: &[usize]) -> Option<usize> {
        let now = self.elapsed_ms();
        loop {
            let rank = |index: &usize| {
                let target = &self.list[*index];
                let is_down = target.down_until.load(Ordering::Relaxed) > now;
                let connections = match self.balance {
                    Balance::RoundRobin => 0,
                    Balance::LeastConnections => target.connections.load(Ordering::Relaxed),
                };
                (is_down, connections, target.last_pick.load(Ordering::Relaxed))
            };
            let candidates = (0..self.list.len()).filter(|index| !tried.contains(index));
            let ((.., last_pick), picked) = candidates.map(|index| (rank(&index), index)).min()?;
            let target = &self.list[picked];
            let number = self.next_pick.fetch_add(1, Ordering::Relaxed);
            // Fails if another worker has picked it in the meantime.
            if target.last_pick.compare_exchange(last_pick, number, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                target.connections.fetch_add(1, Ordering::Relaxed);
                return Some(picked);
            }
        }
    }

    /// A connection to this target is closed or was not established.
    pub fn release(&self, index: usize) {
        self.list[index].connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// None of the addresses of this target could be connected to.
    pub fn mark_down(&self, index: usize) {
        let down_time = u64::try_from(self.down_time.as_millis()).unwrap_or(u64::MAX);
        self.list[index].down_until.store(self.elapsed_ms().saturating_add(down_time), Ordering::Relaxed);
    }

    /// This address of the target was connected to: it is tried first from now on.
    pub fn mark_up(&self, index: usize, reached: &Address) {
        self.list[index].down_until.store(0, Ordering::Relaxed);
        self.list[index].addresses.prefer(reached);
    }

    /// The addresses of a target, in the order in which they are tried.
    pub fn addresses(&self, index: usize) -> Arc<[Address]> {
        self.list[index].addresses.get()
    }

    /// Replaces the addresses of a target.
    pub fn set_addresses(&self, index: usize, addresses: Vec<Address>) {
        if let Some(target) = self.list.get(index) {
            target.addresses.set(addresses);
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
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
    fn targets_are_picked_in_turn_and_those_that_are_down_last() {
        let targets = targets(3, Balance::RoundRobin);
        let picked: Vec<_> = (0..4).filter_map(|_| targets.pick(&[])).collect();
        assert_eq!(picked, [0, 1, 2, 0]);
        targets.mark_down(1);
        let picked: Vec<_> = (0..6).filter_map(|_| targets.pick(&[])).collect();
        assert!(!picked.contains(&1), "{picked:?}");
        assert_eq!(targets.pick(&[0, 2]), Some(1), "the only one left");
        assert_eq!(targets.pick(&[0, 1, 2]), None);
        targets.mark_up(1, &addresses(2..3)[0]);
        assert!((0..3).filter_map(|_| targets.pick(&[])).any(|index| index == 1));
    }

    #[test]
    fn the_target_with_the_fewest_connections_is_picked_first() {
        let targets = targets(3, Balance::LeastConnections);
        let picked: Vec<_> = (0..3).filter_map(|_| targets.pick(&[])).collect();
        assert_eq!(picked, [0, 1, 2]);
        targets.release(1);
        assert_eq!(targets.pick(&[]), Some(1));
    }

    #[test]
    fn the_share_of_a_target_that_is_down_is_spread_evenly() {
        for balance in [Balance::RoundRobin, Balance::LeastConnections] {
            for is_short in [true, false] {
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
                        if is_short {
                            targets.release(picked);
                        }
                        served[picked] += 1;
                        break;
                    }
                }
                assert_eq!(served, [20, 0, 20, 20], "{balance:?}, {is_short}");
            }
        }
    }
}
