//! Regressions of mirrors.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::relay_support::{closed_port, connect, receive, relay_to, send, target, wait_for_stats};
use nix::sys::socket::{setsockopt, sockopt};
use zerosend_core::io::NonBlocking;
use zerosend_core::net::Address;
use zerosend_core::output::{self, FileWriter};
use zerosend_core::relay::{
    Direction, MirrorDestination, MirrorOptions, Outcome, Policy, Relay, RelayOptions, Session, SessionMirror,
};

/// Bytes whose upper half is the number of their stream, 1 to 15, and whose lower half depends on their offset.
fn tagged(stream: u8, length: usize) -> Vec<u8> {
    let mut state = u32::from(stream).wrapping_mul(2_654_435_761);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        stream << 4 | (state >> 28) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Records of 16 bytes with the number of the stream and the offset.
fn records(stream: usize, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        let offset = bytes.len();
        writeln!(bytes, "{stream:05}:{offset:09x}").expect("memory");
    }
    bytes.truncate(length);
    bytes
}

fn stream_of(bytes: &[u8]) -> usize {
    std::str::from_utf8(&bytes[..5]).expect("text").parse().expect("a number")
}

fn mirror(path: &Path, direction: Direction, policy: Policy) -> MirrorOptions {
    MirrorOptions {
        to: MirrorDestination::file(path.to_str().expect("text"), 0o600).expect("opened"),
        direction,
        policy,
    }
}

/// A target that reads and discards the bytes of each connection.
fn discard(listener: &TcpListener, done: &AtomicBool) {
    listener.set_nonblocking(true).expect("non-blocking");
    thread::scope(|scope| {
        while !done.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nonblocking(false).expect("blocking");
                    scope.spawn(move || {
                        let _ = std::io::copy(&mut stream, &mut std::io::sink());
                    });
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    });
}

#[test]
fn each_byte_of_two_directions_and_two_relays_is_in_their_file_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("all");
    let relays: Vec<_> = (0..2)
        .map(|_| {
            let (listener, address) = target();
            let mirrors = [Direction::Up, Direction::Down].map(|direction| mirror(&path, direction, Policy::Block));
            (relay_to(vec![address], |options| options.mirrors = mirrors.into()), listener)
        })
        .collect();
    let length = |stream: u8| 400_000 + usize::from(stream) * 50_000;
    thread::scope(|scope| {
        for (at, (relay, listener)) in relays.iter().enumerate() {
            for number in 0..2 {
                let (up, down) = ((4 * at + 2 * number + 1) as u8, (4 * at + 2 * number + 2) as u8);
                let client = connect(relay);
                let (server, _) = listener.accept().expect("a connection");
                for (socket, stream) in [(&client, up), (&server, down)] {
                    let (to, from) = (socket.try_clone().expect("a clone"), socket.try_clone().expect("a clone"));
                    scope.spawn(move || send(to, &tagged(stream, length(stream)), &[7_000, 90_000]));
                    scope.spawn(move || receive(from));
                }
            }
        }
        // A separate writer, as in another process.
        scope.spawn(|| {
            let mut file = std::fs::File::options().append(true).open(&path).expect("there");
            for _ in 0..1000 {
                file.write_all(&[0xf0; 100]).expect("appended");
            }
        });
    });
    for (relay, _) in &relays {
        let stats = wait_for_stats(relay, |stats| stats.connections == 0);
        assert_eq!((stats.dropped, stats.mirror_failures), (0, 0));
    }
    let written = std::fs::read(&path).expect("a file");
    for stream in 1..=8 {
        let bytes: Vec<_> = written.iter().copied().filter(|byte| byte >> 4 == stream).collect();
        assert!(bytes == tagged(stream, length(stream)), "stream {stream}");
    }
    assert_eq!(written.iter().filter(|byte| **byte == 0xf0).count(), 100_000);
    assert_eq!(written.len(), (1..=8).map(length).sum::<usize>() + 100_000);
}

#[test]
fn a_reset_stream_leaves_a_prefix_and_correct_counts() {
    const STREAMS: usize = 300;
    let directory = tempfile::tempdir().expect("a directory");
    let (listener, address) = target();
    let relay = relay_to(vec![address], |options| {
        options.workers = 4;
        options.mirrors = vec![mirror(&directory.path().join("m-{n}"), Direction::Up, Policy::Drop)];
    });
    let done = AtomicBool::new(false);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| discard(&listener, &done));
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let stream = next.fetch_add(1, Ordering::Relaxed);
                        if stream >= STREAMS {
                            break;
                        }
                        let mut client = connect(&relay);
                        let bytes = records(stream, 20_000 + stream % 7 * 40_000);
                        for chunk in bytes.chunks(30_000) {
                            let _ = client.write_all(chunk);
                        }
                        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                        setsockopt(&client, sockopt::Linger, &linger).expect("an option");
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().expect("a client");
        }
        done.store(true, Ordering::Relaxed);
    });
    wait_for_stats(&relay, |stats| stats.connections == 0);
    // All appends finish before the relay exits.
    let (sender, exited) = channel();
    relay.on_exit(move || {
        let _ = sender.send(());
    });
    relay.close(Duration::ZERO);
    exited.recv_timeout(Duration::from_secs(30)).expect("the end");
    let mut streams = HashSet::new();
    let mut sum = 0;
    for entry in std::fs::read_dir(directory.path()).expect("a directory") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        let stream = stream_of(&bytes);
        assert!(bytes == records(stream, bytes.len()), "not a prefix of stream {stream}");
        assert!(streams.insert(stream), "stream {stream} has two files");
        sum += bytes.len() as u64;
    }
    let stats = relay.stats();
    assert_eq!((stats.mirrored, stats.dropped), (sum, 0));
    assert!(streams.len() > STREAMS / 4, "{} streams", streams.len());
}

#[test]
fn file_numbers_are_unique_across_workers_and_restarts() {
    const CONNECTIONS: usize = 400;
    let directory = tempfile::tempdir().expect("a directory");
    let (listener, address) = target();
    let start = || {
        relay_to(vec![address.clone()], |options| {
            options.workers = 16;
            options.mirrors = vec![mirror(&directory.path().join("m-{n}"), Direction::Up, Policy::Block)];
        })
    };
    let done = AtomicBool::new(false);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| discard(&listener, &done));
        for round in 1..=2 {
            let relay = start();
            thread::scope(|clients| {
                for _ in 0..16 {
                    clients.spawn(|| {
                        loop {
                            let stream = next.fetch_add(1, Ordering::Relaxed);
                            if stream >= CONNECTIONS * round {
                                break;
                            }
                            let mut client = connect(&relay);
                            client.write_all(&records(stream, 64)).expect("sent");
                            client.shutdown(Shutdown::Write).expect("shut down");
                            let _ = client.read(&mut [0]);
                        }
                    });
                }
            });
            next.store(CONNECTIONS * round, Ordering::Relaxed);
            wait_for_stats(&relay, |stats| stats.connections == 0);
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut streams = HashSet::new();
    for number in 1..=2 * CONNECTIONS {
        let bytes = std::fs::read(directory.path().join(format!("m-{number}"))).expect("one file for each");
        assert!(bytes == records(stream_of(&bytes), 64), "m-{number}");
        streams.insert(stream_of(&bytes));
    }
    assert_eq!(streams.len(), 2 * CONNECTIONS);
}

#[test]
fn bytes_before_a_reset_are_in_the_files_of_a_session() {
    let mut options = RelayOptions::for_sessions();
    options.pipe_size = 65_536;
    let relay = Relay::start(options).expect("a relay");
    for policy in [Policy::Block, Policy::Drop] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("copy");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let mut outside = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        let (inside, _) = listener.accept().expect("a connection");
        let (sender, finished) = channel();
        let writer = FileWriter::shared(output::open(&path, 0o600).expect("opened"));
        let session = Session {
            client: NonBlocking::new(inside.into()).expect("a socket"),
            target: None,
            initial_bytes: [Vec::new(), Vec::new()],
            one_way: true,
            mirrors: vec![SessionMirror::File(writer.clone()), SessionMirror::File(writer)],
            policy,
            on_finished: Box::new(move |report| drop(sender.send(report))),
        };
        relay.start_session(session).expect("started");
        let bytes = tagged(3, 200_000);
        outside.write_all(&bytes).expect("sent");
        setsockopt(&outside, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).expect("an option");
        drop(outside);
        let report = finished.recv_timeout(Duration::from_secs(30)).expect("a report");
        assert!(matches!(report.outcome, Outcome::Failed(..)), "{report:?}");
        let written = std::fs::read(&path).expect("a file").len() as u64;
        assert_eq!(report.mirrors.iter().map(|mirror| mirror.bytes).sum::<u64>(), written, "{report:?}");
        assert!(report.mirrors.iter().all(|mirror| mirror.bytes + mirror.dropped == report.up), "{report:?}");
    }
}

/// A server that collects the bytes of each connection.
fn collector(listener: TcpListener) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (sender, collected) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = sender.send(receive(stream.expect("a connection")));
        }
    });
    collected
}

const TIMEOUT: Duration = Duration::from_secs(60);

fn to_server(addresses: &[Address], policy: Policy) -> Vec<MirrorOptions> {
    vec![MirrorOptions { to: MirrorDestination::server(addresses), direction: Direction::Up, policy }]
}

/// Relays `bytes` over one connection.
fn exchange(relay: &Relay, listener: &TcpListener, bytes: &[u8]) {
    let mut client = connect(relay);
    client.write_all(bytes).expect("sent");
    let (server, _) = listener.accept().expect("a connection");
    client.shutdown(Shutdown::Write).expect("shut down");
    assert!(receive(server.try_clone().expect("a clone")) == bytes);
    server.shutdown(Shutdown::Write).expect("shut down");
    assert!(receive(client).is_empty());
}

#[test]
fn the_addresses_of_a_mirror_server_are_tried_in_turn() {
    for policy in [Policy::Block, Policy::Drop] {
        let (mirror, address) = target();
        let collected = collector(mirror);
        // A full backlog: the kernel drops further SYN segments.
        let (full, full_address) = target();
        nix::sys::socket::listen(&full, nix::sys::socket::Backlog::new(0).expect("a length")).expect("listening");
        let Address::Tcp(name) = full_address.clone() else { unreachable!() };
        let _fill: Vec<_> =
            (0..3).filter_map(|_| TcpStream::connect_timeout(&name, Duration::from_millis(200)).ok()).collect();
        let (listener, to) = target();
        let list = [closed_port(), full_address, address];
        let relay = relay_to(vec![to], |options| {
            options.connect_timeout = Duration::from_secs(3);
            options.mirrors = to_server(&list, policy);
        });
        for _ in 0..3 {
            exchange(&relay, &listener, b"hello");
            assert_eq!(collected.recv_timeout(TIMEOUT).expect("a copy"), b"hello", "{policy:?}");
        }
        // Its name resolves to another address.
        let (other, address) = target();
        let collected = collector(other);
        relay.set_mirror_addresses(0, vec![address]);
        relay.set_mirror_addresses(1, vec![closed_port()]);
        exchange(&relay, &listener, b"again");
        assert_eq!(collected.recv_timeout(TIMEOUT).expect("a copy"), b"again", "{policy:?}");
        let stats = wait_for_stats(&relay, |stats| stats.connections == 0);
        assert_eq!((stats.mirror_failures, stats.dropped), (0, 0), "{policy:?}");
    }
}

#[test]
fn a_mirror_waits_for_a_unix_server_with_a_full_backlog() {
    const CLIENTS: usize = 20;
    for policy in [Policy::Block, Policy::Drop] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let mirror = UnixListener::bind(&path).expect("a listener");
        nix::sys::socket::listen(&mirror, nix::sys::socket::Backlog::new(1).expect("a length")).expect("listening");
        let (listener, target) = target();
        let relay = relay_to(vec![target], |options| {
            options.connect_timeout = Duration::from_secs(30);
            options.mirrors = to_server(&[Address::Unix(path)], policy);
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut client = connect(&relay);
                client.write_all(b"hello").expect("sent");
                (listener.accept().expect("a connection").0, client)
            })
            .collect();
        wait_for_stats(&relay, |stats| stats.connections == CLIENTS as u64);
        // All but two of the mirrors fail with EAGAIN until the server accepts.
        for _ in 0..CLIENTS {
            let (mut stream, _) = mirror.accept().expect("a connection");
            stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
            let mut five = [0; 5];
            stream.read_exact(&mut five).expect("a copy");
            assert_eq!(&five, b"hello");
        }
        for (mut server, client) in clients {
            server.read_exact(&mut [0; 5]).expect("received");
            drop((server, client));
        }
        let stats = wait_for_stats(&relay, |stats| stats.connections == 0);
        assert_eq!(stats.dropped, 0, "{policy:?}");
    }
}

#[test]
fn a_mirror_never_connects_to_itself() {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("procfs");
    let range: Vec<u32> = range.split_whitespace().map(|port| port.parse().expect("a port")).collect();
    // connect(2) uses the ports with the parity of the first one: each of them within about half as many tries as there are ports,
    // and almost certainly within six times as many.
    let mut ports = (range[0]..range[1]).filter(|port| port % 2 == range[0] % 2);
    let port = ports.find(|port| TcpListener::bind(("127.0.0.1", *port as u16)).is_ok()).expect("a free port") as u16;
    let address = Address::Tcp(([127, 0, 0, 1], port).into());
    let tries = 3 * (range[1] - range[0]) / 200;
    let (listener, target) = target();
    let relay = relay_to(vec![target], |options| options.mirrors = to_server(&vec![address; 200], Policy::Drop));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| discard(&listener, &done));
        for _ in 0..tries {
            let mut client = connect(&relay);
            client.write_all(b"hello").expect("sent");
            client.shutdown(Shutdown::Write).expect("shut down");
            assert!(receive(client).is_empty());
        }
        done.store(true, Ordering::Relaxed);
    });
    let stats = wait_for_stats(&relay, |stats| stats.connections == 0);
    assert_eq!((stats.mirrored, stats.dropped), (0, 5 * u64::from(tries)));
}

#[test]
fn a_blocking_mirror_without_a_pipe_waits_for_one() {
    const CLIENTS: usize = 4;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("m-{n}");
    let (mirror_listener, address) = target();
    let (listener, target) = target();
    let relay = relay_to(vec![target], |options| {
        // One pipe for all mirrors.
        options.pipes = 1;
        options.mirrors = to_server(&[address], Policy::Block);
        options.mirrors.push(mirror(&path, Direction::Down, Policy::Block));
    });
    let up = records(1, 3_000_000);
    thread::scope(|scope| {
        let mut copies = Vec::new();
        for _ in 0..CLIENTS {
            let client = connect(&relay);
            let (server, _) = listener.accept().expect("a connection");
            let (copy, _) = mirror_listener.accept().expect("a connection");
            copies.push(scope.spawn(move || receive(copy)));
            for (to, from) in [(&client, &server), (&server, &client)] {
                let (to, from) = (to.try_clone().expect("a clone"), from.try_clone().expect("a clone"));
                let data = &up;
                scope.spawn(move || send(to, data, &[90_000]));
                scope.spawn(move || assert!(receive(from) == *data));
            }
        }
        for copy in copies {
            assert!(copy.join().expect("a mirror") == up);
        }
    });
    let stats = wait_for_stats(&relay, |stats| stats.connections == 0);
    assert_eq!((stats.mirror_failures, stats.dropped), (0, 0));
    assert_eq!(stats.mirrored, 2 * (CLIENTS * up.len()) as u64);
    for entry in std::fs::read_dir(directory.path()).expect("a directory").flatten() {
        assert!(std::fs::read(entry.path()).expect("a file") == up);
    }
}
