//! Clients, targets and data for tests of relays.

#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use zerosend_core::net::Address;
use zerosend_core::relay::{Balance, Destination, Relay, RelayOptions, RelaySnapshot};

/// Port 0 of the loopback address.
pub fn any_port() -> Address {
    Address::Tcp(([127, 0, 0, 1], 0).into())
}

pub fn relay_to(targets: Vec<Address>, change: impl FnOnce(&mut RelayOptions)) -> Relay {
    let targets = targets.into_iter().map(|address| vec![address]).collect();
    let mut options = RelayOptions::new(any_port(), Destination::Targets(targets, Balance::RoundRobin));
    options.workers = 1;
    change(&mut options);
    Relay::start(options).expect("a relay")
}

pub fn connect(relay: &Relay) -> TcpStream {
    let Some(Address::Tcp(address)) = relay.address() else { panic!("a TCP relay") };
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

pub fn target() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = Address::Tcp(listener.local_addr().expect("an address"));
    (listener, address)
}

/// A port on which no socket listens.
pub fn closed_port() -> Address {
    target().1
}

/// Pseudo-random bytes.
pub fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Waits until the counters are as expected.
pub fn wait_for_stats(relay: &Relay, mut expected: impl FnMut(&RelaySnapshot) -> bool) -> RelaySnapshot {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let stats = relay.stats();
        if expected(&stats) {
            return stats;
        }
        assert!(Instant::now() < end, "{stats:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Number of open descriptors of this process.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}

/// Writes `data` in chunks of these sizes, with pauses, and shuts down.
pub fn send(mut stream: TcpStream, data: &[u8], chunk_sizes: &[usize]) {
    let mut rest = data;
    for (at, size) in chunk_sizes.iter().cycle().enumerate() {
        if rest.is_empty() {
            break;
        }
        let (chunk, later) = rest.split_at((*size).clamp(1, rest.len()));
        stream.write_all(chunk).expect("sent");
        rest = later;
        if at % 7 == 3 {
            thread::sleep(Duration::from_micros(300));
        }
    }
    stream.shutdown(Shutdown::Write).expect("shut down");
}

/// Reads to the end of the stream.
pub fn receive(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("received");
    all
}
