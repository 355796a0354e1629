//! Sessions of relays, and mirrors.

mod relay_support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use proptest::prelude::*;
use relay_support::{bytes, closed_port, connect, descriptors, receive, relay_to, send, target, wait_for_stats};
use zerosend_core::io::NonBlocking;
use zerosend_core::net::Address;
use zerosend_core::output::{self, FileWriter};
use zerosend_core::relay::{
    Direction, Endpoint, LinkReport, MirrorDestination, MirrorOptions, Outcome, Policy, Relay, RelayMethod,
    RelayOptions, Session, SessionMirror,
};

const TIMEOUT: Duration = Duration::from_secs(30);

fn session_relay(change: impl FnOnce(&mut RelayOptions)) -> Relay {
    let mut options = RelayOptions::for_sessions();
    change(&mut options);
    Relay::start(options).expect("a relay")
}

fn socket(stream: impl Into<OwnedFd>) -> NonBlocking {
    NonBlocking::new(stream.into()).expect("a descriptor")
}

/// Both ends of a TCP connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let one = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
    let (two, _) = listener.accept().expect("a connection");
    for stream in [&one, &two] {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    }
    (one, two)
}

fn new_session(client: NonBlocking, target: Option<NonBlocking>) -> (Session, Receiver<LinkReport>) {
    let (sender, reports) = channel();
    let on_finished = Box::new(move |report| drop(sender.send(report)));
    let initial_bytes = [Vec::new(), Vec::new()];
    (
        Session {
            client,
            target,
            initial_bytes,
            one_way: false,
            mirrors: Vec::new(),
            policy: Policy::Block,
            on_finished,
        },
        reports,
    )
}

#[test]
fn a_session_relays_both_directions_after_the_initial_bytes() {
    for method in [RelayMethod::Auto, RelayMethod::Splice, RelayMethod::ReadWrite] {
        let relay = session_relay(|options| options.method = method);
        let ((a, a_inside), (b, b_inside)) = (pair(), pair());
        let (mut session, finished) = new_session(socket(a_inside), Some(socket(b_inside)));
        session.initial_bytes = [b"before ".to_vec(), Vec::new()];
        relay.start_session(session).expect("started");
        let (up, down) = (bytes(3_000_000, 5), bytes(2_000_000, 6));
        thread::scope(|scope| {
            scope.spawn(|| send(a.try_clone().expect("a clone"), &up, &[9000]));
            scope.spawn(|| send(b.try_clone().expect("a clone"), &down, &[50_000]));
            let got = scope.spawn(|| receive(a.try_clone().expect("a clone")));
            let all = receive(b.try_clone().expect("a clone"));
            assert!(all[..7] == *b"before " && all[7..] == up);
            assert!(got.join().expect("a thread") == down);
        });
        let report = finished.recv_timeout(TIMEOUT).expect("a report");
        assert_eq!((report.up, report.down, report.outcome), (3_000_007, 2_000_000, Outcome::Complete));
    }
}

#[test]
fn a_session_reports_the_failed_endpoint_and_can_be_cancelled() {
    let relay = session_relay(|options| options.idle_timeout = Duration::from_millis(300));
    for (resets, endpoint) in [(0, Endpoint::Client), (1, Endpoint::Target)] {
        let ((a, a_inside), (b, b_inside)) = (pair(), pair());
        let (session, finished) = new_session(socket(a_inside), Some(socket(b_inside)));
        relay.start_session(session).expect("started");
        let (resetting, mut other) = if resets == 0 { (a, b) } else { (b, a) };
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&resetting, nix::sys::socket::sockopt::Linger, &linger).expect("an option");
        drop(resetting);
        let report = finished.recv_timeout(TIMEOUT).expect("a report");
        assert_eq!(report.outcome, Outcome::Failed(endpoint, Errno::ECONNRESET));
        assert!(other.read(&mut [0]).is_err(), "reset too");
    }
    let ((mut a, a_inside), (_b, b_inside)) = (pair(), pair());
    let (session, finished) = new_session(socket(a_inside), Some(socket(b_inside)));
    let id = relay.start_session(session).expect("started");
    relay.cancel_session(id);
    assert_eq!(finished.recv_timeout(TIMEOUT).expect("a report").outcome, Outcome::Aborted);
    assert!(a.read(&mut [0]).is_err(), "a reset");

    let ((_a, a_inside), (_b, b_inside)) = (pair(), pair());
    let (session, finished) = new_session(socket(a_inside), Some(socket(b_inside)));
    relay.start_session(session).expect("started");
    assert_eq!(finished.recv_timeout(TIMEOUT).expect("a report").outcome, Outcome::Idle);
}

/// Reads to the end in chunks of `size` bytes, with pauses.
fn receive_slowly(mut from: impl Read, size: usize, pause: Duration) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; size];
    loop {
        match from.read(&mut buffer).expect("received") {
            0 => return all,
            count => all.extend_from_slice(&buffer[..count]),
        }
        thread::sleep(pause);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn five_mirrors_of_any_speed_receive_the_same_bytes(
        length in 0..900_000_usize,
        chunk_sizes in prop::collection::vec(1..70_000_usize, 1..6),
        speeds in prop::collection::vec((1_000..200_000_usize, 0..400_u64), 4),
        splices: bool,
        has_target: bool,
        no_pipes: bool,
    ) {
        let relay = session_relay(|options| {
            options.method = if splices { RelayMethod::Splice } else { RelayMethod::ReadWrite };
            // A pipe of 4096 bytes has one buffer, which holds one page fragment of any size.
            options.pipe_size = if no_pipes { 4096 } else { 65_536 };
        });
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("copy");
        let data = bytes(length, 9);
        let (source, source_inside) = pair();
        let mut readers: Vec<Box<dyn Read + Send>> = Vec::new();
        let mut sinks = Vec::new();
        for at in 0..4 {
            // A TCP socket, a Unix socket and a pipe in turn.
            let (reader, sink): (Box<dyn Read + Send>, _) = match at % 3 {
                0 => {
                    let (reader, sink) = pair();
                    (Box::new(reader), socket(sink))
                }
                1 => {
                    let (reader, sink) = UnixStream::pair().expect("a pair");
                    (Box::new(reader), socket(sink))
                }
                _ => {
                    let (reader, sink) = nix::unistd::pipe().expect("a pipe");
                    (Box::new(std::fs::File::from(reader)), socket(sink))
                }
            };
            readers.push(reader);
            sinks.push(sink);
        }
        let (mut session, finished) = new_session(socket(source_inside), None);
        session.one_way = true;
        if has_target {
            session.target = sinks.pop();
        }
        session.mirrors = sinks.into_iter().map(SessionMirror::Stream).collect();
        session.mirrors.push(SessionMirror::File(FileWriter::shared(output::open(&path, 0o600).expect("opened"))));
        relay.start_session(session).expect("started");
        thread::scope(|scope| {
            let threads: Vec<_> = readers
                .into_iter()
                .zip(&speeds)
                .map(|(reader, (size, pause))| {
                    scope.spawn(move || receive_slowly(reader, *size, Duration::from_micros(*pause)))
                })
                .collect();
            send(source, &data, &chunk_sizes);
            for thread in threads {
                assert!(thread.join().expect("a reader") == data);
            }
        });
        let report = finished.recv_timeout(TIMEOUT).expect("a report");
        prop_assert_eq!((report.outcome, report.up), (Outcome::Complete, length as u64));
        prop_assert!(report.mirrors.iter().all(|mirror| mirror.bytes == length as u64 && mirror.dropped == 0));
        prop_assert!(std::fs::read(&path).unwrap_or_default() == data);
    }
}

#[test]
fn a_slow_mirror_misses_bytes_under_drop_and_blocks_the_session_under_block() {
    let data = bytes(8 << 20, 4);
    for policy in [Policy::Drop, Policy::Block] {
        let relay = session_relay(|_| {});
        let ((source, source_inside), (good, good_inside), (bad, bad_inside)) = (pair(), pair(), pair());
        let (mut session, finished) = new_session(socket(source_inside), None);
        session.one_way = true;
        session.policy = policy;
        session.mirrors = vec![SessionMirror::Stream(socket(good_inside)), SessionMirror::Stream(socket(bad_inside))];
        relay.start_session(session).expect("started");
        thread::scope(|scope| {
            scope.spawn(|| send(source.try_clone().expect("a clone"), &data, &[100_000]));
            let got = scope.spawn(|| receive(good));
            if policy == Policy::Block {
                thread::sleep(Duration::from_millis(300));
                assert!(!got.is_finished(), "blocked by the other mirror");
                assert!(receive(bad) == data);
                assert!(got.join().expect("a reader") == data);
                let report = finished.recv_timeout(TIMEOUT).expect("a report");
                assert!(report.mirrors.iter().all(|mirror| mirror.dropped == 0), "{report:?}");
            } else {
                let got = got.join().expect("a reader");
                drop(bad);
                let report = finished.recv_timeout(TIMEOUT).expect("a report");
                assert_eq!(report.mirrors[0].bytes, got.len() as u64);
                assert!(report.mirrors[1].dropped > 1 << 20, "{report:?}");
                assert!(report.mirrors[0].dropped < report.mirrors[1].dropped, "{report:?}");
                for mirror in &report.mirrors {
                    assert_eq!(mirror.bytes + mirror.dropped, data.len() as u64, "{report:?}");
                }
            }
        });
    }
}

#[test]
fn a_failed_mirror_ends_the_session_under_block_only() {
    for policy in [Policy::Drop, Policy::Block] {
        let relay = session_relay(|_| {});
        let ((mut source, source_inside), (mut good, good_inside)) = (pair(), pair());
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        drop(reader);
        let (mut session, finished) = new_session(socket(source_inside), Some(socket(good_inside)));
        session.one_way = true;
        session.policy = policy;
        session.mirrors = vec![SessionMirror::Stream(socket(writer))];
        // Written before the session starts, which may fail and reset the connection at once.
        source.write_all(b"hello").expect("sent");
        source.shutdown(Shutdown::Write).expect("half-closed");
        relay.start_session(session).expect("started");
        let report = finished.recv_timeout(TIMEOUT).expect("a report");
        assert_eq!(report.mirrors[0].failure, Some(Errno::EPIPE));
        if policy == Policy::Drop {
            assert_eq!((report.outcome, report.up, report.mirrors[0].dropped), (Outcome::Complete, 5, 5));
            let mut five = [0; 5];
            good.read_exact(&mut five).expect("received");
        } else {
            assert_eq!(report.outcome, Outcome::Failed(Endpoint::Mirror(0), Errno::EPIPE));
        }
    }
}

fn relay_with(mirrors: Vec<MirrorOptions>) -> (Relay, TcpListener) {
    let (listener, address) = target();
    (relay_to(vec![address], |options| options.mirrors = mirrors), listener)
}

/// Relays `up` and `down` over one connection and compares.
fn exchange(relay: &Relay, listener: &TcpListener, up: &[u8], down: &[u8]) {
    let client = connect(relay);
    let (server, _) = listener.accept().expect("a connection");
    thread::scope(|scope| {
        scope.spawn(|| send(client.try_clone().expect("a clone"), up, &[30_000]));
        scope.spawn(|| send(server.try_clone().expect("a clone"), down, &[30_000]));
        let got = scope.spawn(|| receive(client.try_clone().expect("a clone")));
        assert!(receive(server.try_clone().expect("a clone")) == up);
        assert!(got.join().expect("a reader") == down);
    });
}

#[test]
fn mirrors_copy_both_directions_to_files_and_a_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let audit = directory.path().join("audit");
    std::fs::write(&audit, "earlier ").expect("a file");
    let (mirror, mirror_address) = target();
    let (relay, listener) = relay_with(vec![
        MirrorOptions {
            to: MirrorDestination::file(directory.path().join("down-{n}").to_str().expect("text"), 0o600)
                .expect("a name"),
            direction: Direction::Down,
            policy: Policy::Block,
        },
        MirrorOptions {
            to: MirrorDestination::file(audit.to_str().expect("text"), 0o600).expect("opened"),
            direction: Direction::Up,
            policy: Policy::Block,
        },
        MirrorOptions {
            to: MirrorDestination::server(&[mirror_address]),
            direction: Direction::Up,
            policy: Policy::Block,
        },
    ]);
    let (up, down) = (bytes(700_000, 1), bytes(900_000, 2));
    thread::scope(|scope| {
        // The mirror sends back everything, which the relay has to discard.
        let copied = scope.spawn(|| {
            let (mut stream, _) = mirror.accept().expect("a connection");
            let mut all = Vec::new();
            let mut buffer = vec![0; 50_000];
            loop {
                match stream.read(&mut buffer).expect("received") {
                    0 => return all,
                    count => {
                        all.extend_from_slice(&buffer[..count]);
                        stream.write_all(&buffer[..count]).expect("taken");
                    }
                }
            }
        });
        exchange(&relay, &listener, &up, &down);
        assert!(copied.join().expect("a mirror") == up);
    });
    let stats = wait_for_stats(&relay, |stats| stats.connections == 0);
    assert_eq!((stats.mirrored, stats.dropped, stats.mirror_failures), (2 * 700_000 + 900_000, 0, 0));
    let written = std::fs::read(&audit).expect("a file");
    assert!(written[..8] == *b"earlier " && written[8..] == up);
    assert!(std::fs::read(directory.path().join("down-1")).expect("a file") == down);
    assert_eq!(relay.stats().degraded, 0);
}

#[test]
fn a_mirror_that_is_down_or_hangs_does_not_affect_connections_under_drop() {
    let (hanging, hanging_address) = target();
    nix::sys::socket::listen(&hanging, nix::sys::socket::Backlog::new(0).expect("a length")).expect("listening");
    let Address::Tcp(full) = hanging_address.clone() else { unreachable!() };
    let _fill: Vec<_> =
        (0..3).filter_map(|_| TcpStream::connect_timeout(&full, Duration::from_millis(200)).ok()).collect();
    let drop_to = |address| MirrorOptions {
        to: MirrorDestination::server(&[address]),
        direction: Direction::Up,
        policy: Policy::Drop,
    };
    let (relay, listener) = relay_with(vec![
        drop_to(closed_port()),
        drop_to(hanging_address),
        drop_to(Address::Unix("/nowhere/at/all".into())),
        MirrorOptions {
            to: MirrorDestination::file("/nowhere/at/all-{n}", 0o600).expect("a name"),
            direction: Direction::Down,
            policy: Policy::Drop,
        },
    ]);
    let (up, down) = (bytes(2_000_000, 1), bytes(1_000_000, 2));
    exchange(&relay, &listener, &up, &down);
    let stats = wait_for_stats(&relay, |stats| stats.connections == 0);
    assert_eq!((stats.dropped, stats.mirrored), (3 * 2_000_000 + 1_000_000, 0));
    assert_eq!((stats.client_failures, stats.target_failures), (0, 0));
}

#[test]
fn a_refused_mirror_resets_the_connection_under_block() {
    let (relay, listener) = relay_with(vec![MirrorOptions {
        to: MirrorDestination::server(&[closed_port()]),
        direction: Direction::Up,
        policy: Policy::Block,
    }]);
    let mut client = connect(&relay);
    // The mirror may be refused, and the connection reset, before this is sent. Then the write gets the error, and not the read.
    let write_failed = client.write_all(b"hello").is_err();
    let (mut server, _) = listener.accept().expect("a connection");
    // Bytes in the pipe of the mirror may be relayed before its connection is refused.
    assert!(server.read_to_end(&mut Vec::new()).is_err(), "a reset");
    assert!(write_failed || client.read(&mut [0]).is_err(), "a reset");
    wait_for_stats(&relay, |stats| stats.mirror_failures == 1 && stats.connections == 0 && stats.mirrored == 0);
}

#[test]
fn idle_mirrors_hold_no_pipes() {
    let directory = tempfile::tempdir().expect("a directory");
    let (relay, listener) = relay_with(vec![MirrorOptions {
        to: MirrorDestination::file(directory.path().join("audit").to_str().expect("text"), 0o600).expect("opened"),
        direction: Direction::Up,
        policy: Policy::Block,
    }]);
    let mut pairs = Vec::new();
    let before = descriptors();
    for _ in 0..50 {
        let mut client = connect(&relay);
        client.write_all(b"x").expect("sent");
        let (mut server, _) = listener.accept().expect("a connection");
        server.read_exact(&mut [0]).expect("received");
        pairs.push((client, server));
    }
    wait_for_stats(&relay, |stats| stats.mirrored == 50);
    thread::sleep(Duration::from_millis(20));
    // Other tests of this process open descriptors too, but not a hundred pipes.
    assert!(descriptors() <= before + 50 * 4 + 90, "{} descriptors", descriptors() - before);
}
