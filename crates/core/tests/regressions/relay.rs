//! Regressions of relays.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::relay_support::{any_port, bytes, closed_port, connect, receive, relay_to, target, wait_for_stats};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};
use zerosend_core::io::NonBlocking;
use zerosend_core::net::Address;
use zerosend_core::relay::{
    Balance, Destination, Endpoint, LinkReport, Outcome, Policy, Relay, RelayMethod, RelayOptions, Session,
    SessionMirror,
};

const METHODS: [RelayMethod; 3] = [RelayMethod::Auto, RelayMethod::Splice, RelayMethod::ReadWrite];
/// Runs a test with each method, in parallel.
fn with_each_method(test: impl Fn(RelayMethod) + Sync) {
    thread::scope(|scope| {
        for method in METHODS {
            let test = &test;
            scope.spawn(move || test(method));
        }
    });
}

const TIMEOUT: Duration = Duration::from_secs(60);

/// Makes close(2) send a reset.
fn reset_on_close(socket: &TcpStream) {
    setsockopt(socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).expect("an option");
}

/// Reads to the end or to an error: the bytes, and whether the stream ended without an error.
fn read_until_closed(mut stream: impl Read) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (all, true),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(_) => return (all, false),
        }
    }
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let one = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
    let (two, _) = listener.accept().expect("a connection");
    for stream in [&one, &two] {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    }
    (one, two)
}

fn nonblocking(fd: impl Into<std::os::fd::OwnedFd>) -> NonBlocking {
    NonBlocking::new(fd.into()).expect("a descriptor")
}

fn start_session(
    relay: &Relay,
    client: TcpStream,
    target: Option<NonBlocking>,
    mirrors: Vec<SessionMirror>,
) -> std::sync::mpsc::Receiver<LinkReport> {
    let (sender, reports) = channel();
    let session = Session {
        client: nonblocking(client),
        one_way: !mirrors.is_empty() || target.is_none(),
        target,
        initial_bytes: [Vec::new(), Vec::new()],
        mirrors,
        policy: Policy::Block,
        on_finished: Box::new(move |report| drop(sender.send(report))),
    };
    relay.start_session(session).expect("started");
    reports
}

fn session_relay(method: RelayMethod) -> Relay {
    let mut options = RelayOptions::for_sessions();
    options.method = method;
    Relay::start(options).expect("a relay")
}

/// Reads 100 bytes, answers, and closes with unread bytes, which causes a reset.
fn answer_and_reset(mut server: TcpStream, answer: &[u8]) {
    server.read_exact(&mut [0; 100]).expect("received");
    server.write_all(answer).expect("sent");
}

#[test]
fn a_response_before_a_reset_is_delivered() {
    with_each_method(|method| {
        let (listener, address) = target();
        let relay = relay_to(vec![address], |options| options.method = method);
        thread::scope(|scope| {
            scope.spawn(|| (0..150).for_each(|_| answer_and_reset(listener.accept().expect("one").0, b"answer")));
            for attempt in 0..150 {
                let mut client = connect(&relay);
                client.write_all(&[1; 3000]).expect("sent");
                let (got, clean) = read_until_closed(&client);
                assert_eq!(got, b"answer", "{method:?}, {attempt}");
                assert!(!clean, "{method:?}: a reset follows");
            }
        });
        wait_for_stats(&relay, |stats| stats.connections == 0);
    });
}

#[test]
fn a_long_response_before_a_reset_reaches_a_slow_reader_completely() {
    let answer = bytes(600_000, 9);
    with_each_method(|method| {
        let (listener, address) = target();
        let relay = relay_to(vec![address], |options| options.method = method);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut server, _) = listener.accept().expect("one");
                server.read_exact(&mut [0; 100]).expect("received");
                server.write_all(&answer).expect("sent");
                // A reset discards unacknowledged bytes.
                while unacknowledged(&server) > 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let mut client = connect(&relay);
            setsockopt(&client, sockopt::RcvBuf, &65_536).expect("an option");
            client.write_all(&[1; 3000]).expect("sent");
            let mut got = Vec::new();
            let mut chunk = vec![0; 4096];
            let clean = loop {
                thread::sleep(Duration::from_millis(1));
                match client.read(&mut chunk) {
                    Ok(0) => break true,
                    Ok(count) => got.extend_from_slice(&chunk[..count]),
                    Err(_) => break false,
                }
            };
            assert!(got == answer, "{method:?}: {} bytes", got.len());
            assert!(!clean, "{method:?}: a reset follows");
        });
    });
}

fn unacknowledged(socket: &TcpStream) -> u64 {
    zerosend_sys::socket::unacknowledged(socket.as_fd()).expect("a count")
}

#[test]
fn bytes_that_a_client_sends_before_its_reset_reach_the_target() {
    let data = bytes(200_000, 3);
    with_each_method(|method| {
        let (listener, address) = target();
        let relay = relay_to(vec![address], |options| options.method = method);
        for _ in 0..20 {
            let mut client = connect(&relay);
            client.write_all(&data).expect("sent");
            // A reset discards unacknowledged bytes.
            while unacknowledged(&client) > 0 {
                thread::yield_now();
            }
            reset_on_close(&client);
            drop(client);
            let (server, _) = listener.accept().expect("a connection");
            server.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
            let (got, clean) = read_until_closed(server);
            assert!(got == data, "{method:?}: {} bytes", got.len());
            assert!(!clean, "{method:?}: a reset follows");
        }
        wait_for_stats(&relay, |stats| stats.connections == 0 && stats.client_failures == 20);
    });
}

#[test]
fn a_response_before_a_reset_is_delivered_by_sessions_and_unix_sockets() {
    with_each_method(|method| {
        let relay = session_relay(method);
        for _ in 0..20 {
            let ((mut a, a_inside), (b, b_inside)) = (pair(), pair());
            let finished = start_session(&relay, a_inside, Some(nonblocking(b_inside)), Vec::new());
            a.write_all(&[1; 3000]).expect("sent");
            answer_and_reset(b, b"answer");
            assert_eq!(read_until_closed(&a), (b"answer".to_vec(), false), "{method:?}");
            let report = finished.recv_timeout(TIMEOUT).expect("a report");
            assert!(matches!(report.outcome, Outcome::Failed(Endpoint::Target, _)), "{report:?}");
            assert_eq!(report.down, 6);
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).expect("a listener");
        let relay = relay_to(vec![Address::Unix(path)], |options| options.method = method);
        for _ in 0..20 {
            let mut client = connect(&relay);
            client.write_all(&[1; 3000]).expect("sent");
            let (mut server, _) = listener.accept().expect("a connection");
            server.read_exact(&mut [0; 100]).expect("received");
            server.write_all(b"answer").expect("sent");
            drop(server);
            assert_eq!(read_until_closed(&client).0, b"answer", "{method:?}");
        }
    });
}

#[test]
fn mirrors_receive_all_bytes_before_the_reset_of_their_source() {
    let data = bytes(300_000, 5);
    with_each_method(|method| {
        let relay = session_relay(method);
        for _ in 0..10 {
            let ((mut source, inside), (one, one_inside), (two, two_inside)) = (pair(), pair(), pair());
            let mirrors = vec![SessionMirror::Stream(nonblocking(two_inside))];
            let finished = start_session(&relay, inside, Some(nonblocking(one_inside)), mirrors);
            thread::scope(|scope| {
                let got = scope.spawn(|| read_until_closed(one).0);
                let copy = scope.spawn(|| read_until_closed(two).0);
                source.write_all(&data).expect("sent");
                while unacknowledged(&source) > 0 {
                    thread::yield_now();
                }
                reset_on_close(&source);
                drop(source);
                assert!(got.join().expect("a reader") == data, "{method:?}");
                let copy = copy.join().expect("a reader");
                assert!(copy == data, "{method:?}: {} bytes", copy.len());
            });
            let report = finished.recv_timeout(TIMEOUT).expect("a report");
            assert!(matches!(report.outcome, Outcome::Failed(Endpoint::Client, _)), "{report:?}");
            assert_eq!((report.up, report.mirrors[0].bytes), (300_000, 300_000));
        }
    });
}

#[test]
fn an_idle_timeout_ignores_slow_readers_and_resets_the_connection() {
    let data = bytes(2 << 20, 4);
    with_each_method(|method| {
        let (listener, address) = target();
        let relay = relay_to(vec![address], |options| {
            options.method = method;
            options.idle_timeout = Duration::from_millis(1000);
        });
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut server, _) = listener.accept().expect("one");
                server.write_all(&data).expect("sent");
                // The stream is neither ended nor continued.
                let (_, clean) = read_until_closed(server);
                assert!(!clean, "{method:?}: the target sees the end of the stream");
            });
            let mut client = connect(&relay);
            setsockopt(&client, sockopt::RcvBuf, &65_536).expect("an option");
            let mut got = Vec::new();
            let mut chunk = vec![0; 32 * 1024];
            let start = Instant::now();
            let clean = loop {
                // The last write of the relay comes long before the client has read everything.
                thread::sleep(Duration::from_millis(50));
                match client.read(&mut chunk) {
                    Ok(0) => break true,
                    Ok(count) => got.extend_from_slice(&chunk[..count]),
                    Err(_) => break false,
                }
            };
            assert!(got == data, "{method:?}: {} bytes after {:?}", got.len(), start.elapsed());
            assert!(!clean, "{method:?}: the client sees the end of the stream");
        });
        wait_for_stats(&relay, |stats| stats.idle_timeouts == 1);
    });
}

#[test]
fn a_short_read_does_not_mean_that_the_socket_is_empty() {
    let directory = tempfile::tempdir().expect("a directory");
    with_each_method(|method| {
        // A read of a Unix socket stops at descriptors.
        let (listener, address) = target();
        let path = directory.path().join(format!("{method:?}"));
        let mut options = RelayOptions::new(
            Address::Unix(path.clone()),
            Destination::Targets(vec![vec![address]], Balance::RoundRobin),
        );
        options.workers = 1;
        options.method = method;
        let relay = Relay::start(options).expect("a relay");
        let mut client = UnixStream::connect(&path).expect("connected");
        let (mut server, _) = listener.accept().expect("a connection");
        server.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let mut six = [0; 6];
        for _ in 0..20 {
            let fds = [std::io::stdin().as_raw_fd()];
            let rights = [ControlMessage::ScmRights(&fds)];
            let slices = [std::io::IoSlice::new(b"abc")];
            sendmsg::<()>(client.as_raw_fd(), &slices, &rights, MsgFlags::empty(), None).expect("sent");
            client.write_all(b"def").expect("sent");
            server.read_exact(&mut six).expect("without another event");
            assert_eq!(&six, b"abcdef", "{method:?}");
        }
        drop(relay);

        // A read of a TCP socket stops at urgent data, and so does splice(2).
        let (listener, address) = target();
        let relay = relay_to(vec![address], |options| options.method = method);
        let client = connect(&relay);
        let (mut server, _) = listener.accept().expect("a connection");
        server.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let mut seven = [0; 7];
        for _ in 0..20 {
            (&client).write_all(b"abc").expect("sent");
            nix::sys::socket::send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("sent");
            (&client).write_all(b"def").expect("sent");
            server.read_exact(&mut seven).expect("without another event");
            assert_eq!(&seven, b"abc!def", "{method:?}");
        }
        // The end of the stream arrives together with it.
        (&client).write_all(b"abc").expect("sent");
        nix::sys::socket::send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("sent");
        (&client).write_all(b"def").expect("sent");
        client.shutdown(Shutdown::Write).expect("shut down");
        assert_eq!(receive(server), b"abc!def", "{method:?}");
    });
}

#[test]
fn an_echo_returns_urgent_data_at_its_place() {
    with_each_method(|method| {
        let mut options = RelayOptions::new(any_port(), Destination::Echo);
        options.method = method;
        let relay = Relay::start(options).expect("a relay");
        let client = connect(&relay);
        (&client).write_all(b"abc").expect("sent");
        nix::sys::socket::send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("sent");
        (&client).write_all(b"def").expect("sent");
        client.shutdown(Shutdown::Write).expect("shut down");
        assert_eq!(receive(client), b"abc!def", "{method:?}");
    });
}

/// A target that reads a byte of each connection and sends its name.
fn named_target(name: u8) -> Address {
    let (listener, address) = target();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            thread::spawn(move || {
                let _ = stream.read(&mut [0]);
                let _ = stream.write_all(&[name]);
            });
        }
    });
    address
}

#[test]
fn a_self_connect_counts_as_refused() {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("procfs");
    let range: Vec<u32> = range.split_whitespace().map(|port| port.parse().expect("a port")).collect();
    // connect(2) uses the ports with the parity of the first one in turn: each of them within half as many tries as there are ports.
    let mut ports = (range[0]..range[1]).rev().filter(|port| port % 2 == range[0] % 2);
    let port = ports.find(|port| TcpListener::bind(("127.0.0.1", *port as u16)).is_ok()).expect("a free port") as u16;
    // Many tries for each client.
    let name = Address::Tcp(([127, 0, 0, 1], port).into());
    let relay = relay_to(vec![name; 200], |options| {
        options.retries = 200;
        options.down_time = Duration::ZERO;
    });
    let tries = (range[1] - range[0]) / 200;
    for attempt in 0..tries {
        let mut client = connect(&relay);
        // The connection may already be reset.
        let _ = client.write_all(b"hello");
        let mut five = [0; 5];
        assert!(!client.read(&mut five).is_ok_and(|count| count > 0), "attempt {attempt}: {five:?} came back");
        // Otherwise the port stays in TIME_WAIT for a minute.
        reset_on_close(&client);
    }
    wait_for_stats(&relay, |stats| stats.connections == 0 && stats.unreachable == u64::from(tries));
}

#[test]
fn the_addresses_of_a_target_are_tried_in_turn() {
    let alive = named_target(b'a');
    let loopback6 = Address::Tcp("[::1]:1".parse().expect("an address"));
    let list = vec![loopback6, closed_port(), alive];
    let mut options = RelayOptions::new(any_port(), Destination::Targets(vec![list.clone()], Balance::RoundRobin));
    options.workers = 1;
    options.retries = 0;
    let relay = Relay::start(options).expect("a relay");
    let name_of_target = |relay: &Relay| {
        let mut client = connect(relay);
        client.write_all(b"?").expect("sent");
        receive(client)
    };
    for _ in 0..3 {
        assert_eq!(name_of_target(&relay), b"a");
    }
    assert_eq!((relay.stats().unreachable, relay.stats().retries), (0, 0));
    // Its name resolves to another address.
    relay.set_addresses(0, vec![named_target(b'b')]);
    assert_eq!(name_of_target(&relay), b"b");

    // The same with a resolver.
    let (sender, requests) = channel();
    let sender = std::sync::Mutex::new(sender);
    let resolver = move |request| sender.lock().expect("a lock").send(request).expect("a receiver");
    let options = RelayOptions::new(any_port(), Destination::Resolver(std::sync::Arc::new(resolver)));
    let relay = Relay::start(options).expect("a relay");
    let mut client = connect(&relay);
    client.write_all(b"?").expect("sent");
    relay.resolve_target(requests.recv().expect("a request").id, list);
    assert_eq!(receive(client), b"a");
}

#[test]
fn an_address_that_does_not_answer_leaves_time_for_the_next() {
    // A full backlog: the kernel drops further SYN segments.
    let (full, full_address) = target();
    nix::sys::socket::listen(&full, nix::sys::socket::Backlog::new(0).expect("a length")).expect("listening");
    let Address::Tcp(name) = full_address.clone() else { unreachable!() };
    let _fill: Vec<_> =
        (0..3).filter_map(|_| TcpStream::connect_timeout(&name, Duration::from_millis(200)).ok()).collect();
    let list = vec![full_address, named_target(b'a')];
    let mut options = RelayOptions::new(any_port(), Destination::Targets(vec![list], Balance::RoundRobin));
    options.connect_timeout = Duration::from_secs(2);
    let relay = Relay::start(options).expect("a relay");
    let mut client = connect(&relay);
    client.write_all(b"?").expect("sent");
    assert_eq!(receive(client), b"a");
}

#[test]
fn the_share_of_a_target_that_is_down_is_spread_evenly() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections] {
        let targets =
            vec![vec![named_target(b'a')], vec![closed_port()], vec![named_target(b'c')], vec![named_target(b'd')]];
        let mut options = RelayOptions::new(any_port(), Destination::Targets(targets, balance));
        options.workers = 1;
        options.down_time = Duration::from_secs(60);
        let relay = Relay::start(options).expect("a relay");
        let mut served = [0; 256];
        for _ in 0..60 {
            let mut client = connect(&relay);
            client.write_all(b"?").expect("sent");
            served[usize::from(receive(client)[0])] += 1;
            wait_for_stats(&relay, |stats| stats.connections == 0);
        }
        let counts = [b'a', b'c', b'd'].map(|name| served[usize::from(name)]);
        assert_eq!(counts, [20, 20, 20], "{balance:?}");
    }
}

#[test]
fn a_connection_waits_for_a_unix_target_with_a_full_backlog() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).expect("a listener");
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).expect("a length")).expect("listening");
    let relay = relay_to(vec![Address::Unix(path)], |options| {
        options.retries = 0;
        options.connect_timeout = Duration::from_secs(30);
    });
    let clients: Vec<_> = (0..50).map(|_| connect(&relay)).collect();
    wait_for_stats(&relay, |stats| stats.connections == 50);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..50 {
                listener.accept().expect("one").0.write_all(b"x").expect("sent");
            }
        });
        for client in clients {
            assert_eq!(receive(client), b"x");
        }
    });
    assert_eq!((relay.stats().unreachable, relay.stats().connect_timeouts), (0, 0));
}

#[test]
fn connections_in_the_backlog_at_close_are_served() {
    let directory = tempfile::tempdir().expect("a directory");
    let addresses = [any_port(), Address::Unix(directory.path().join("s"))];
    for (workers, address) in [(1, &addresses[0]), (2, &addresses[0]), (4, &addresses[1])] {
        let target = named_target(b'a');
        let mut options =
            RelayOptions::new(address.clone(), Destination::Targets(vec![vec![target]], Balance::RoundRobin));
        options.workers = workers;
        let relay = Relay::start(options).expect("a relay");
        let connect = || -> Box<dyn Stream> {
            match relay.address() {
                Some(Address::Tcp(address)) => Box::new(TcpStream::connect(address).expect("connected")),
                Some(Address::Unix(path)) => Box::new(UnixStream::connect(path).expect("connected")),
                None => unreachable!(),
            }
        };
        let clients: Vec<_> = (0..300).map(|_| connect()).collect();
        relay.close(Duration::from_secs(60));
        for (number, mut client) in clients.into_iter().enumerate() {
            client.write_all(b"?").unwrap_or_else(|error| panic!("client {number} of {workers} workers: {error}"));
            assert_eq!(read_until_closed(client).0, b"a", "client {number} of {workers} workers");
        }
        let (sender, exited) = channel();
        relay.on_exit(move || sender.send(()).expect("a receiver"));
        exited.recv_timeout(TIMEOUT).expect("the end");
    }
}

trait Stream: Read + Write {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

#[test]
fn a_connection_wakes_one_of_the_workers_that_share_a_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    let mut options = RelayOptions::new(Address::Unix(path.clone()), Destination::Echo);
    options.workers = 16;
    let relay = Relay::start(options).expect("a relay");
    let wakeups = || -> u64 {
        // Each wake-up of a thread in epoll_wait(2) follows a voluntary context switch.
        let tasks = std::fs::read_dir("/proc/self/task").expect("procfs").flatten();
        let of = |task: std::fs::DirEntry| {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let count =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok());
            (name.trim() == "zerosend-relay").then_some(count.unwrap_or(0))
        };
        tasks.filter_map(of).sum::<u64>()
    };
    let before = wakeups();
    for _ in 0..500 {
        let mut client = UnixStream::connect(&path).expect("connected");
        client.write_all(b"x").expect("sent");
        client.shutdown(Shutdown::Write).expect("shut down");
        assert_eq!(read_until_closed(client).0, b"x");
    }
    wait_for_stats(&relay, |stats| stats.accepted == 500 && stats.connections == 0);
    // One to accept and a few for the connection; 16 and more if all workers wake.
    let count = wakeups() - before;
    assert!(count < 500 * 8, "{count} wake-ups for 500 connections");
}

#[test]
fn invalid_unix_socket_names_are_refused_at_start() {
    let long = format!("/tmp/{}", "x".repeat(110));
    for (path, reason) in [(long.as_str(), "115 bytes is too long; use at most 107"), ("/tmp/a\0b", "NUL byte")] {
        let name = Address::Unix(path.into());
        let target = Destination::Targets(vec![vec![name.clone()]], Balance::RoundRobin);
        for options in [RelayOptions::new(any_port(), target), RelayOptions::new(name, Destination::Echo)] {
            let error = Relay::start(options).map(drop).expect_err("refused").to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}

#[test]
fn a_relay_listens_on_and_connects_to_abstract_unix_sockets() {
    let name = |what: &str| Address::Unix(format!("\0zerosend-{}-{what}", std::process::id()).into());
    let echo = Relay::start(RelayOptions::new(name("echo"), Destination::Echo)).expect("a relay");
    let relay = relay_to(vec![echo.address().expect("an address").clone()], |_| {});
    let mut client = connect(&relay);
    client.write_all(b"hello").expect("sent");
    client.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(receive(client), b"hello");
}

#[test]
fn keep_alive_is_set_on_both_sides() {
    let (listener, address) = target();
    let relay = relay_to(vec![address], |_| {});
    let client = connect(&relay);
    let (server, _) = listener.accept().expect("a connection");
    wait_for_stats(&relay, |stats| stats.connections == 1);
    // The sockets of the relay are descriptors of this process too.
    let peers = [client.local_addr(), server.local_addr()].map(|address| address.expect("an address"));
    let mut probed = 0;
    for entry in std::fs::read_dir("/proc/self/fd").expect("procfs").flatten() {
        let Some(Ok(number)) = entry.file_name().to_str().map(str::parse::<i32>) else { continue };
        let peer = nix::sys::socket::getpeername::<nix::sys::socket::SockaddrIn>(number);
        let Ok(Some(peer)) = peer.map(|peer| peers.iter().find(|wanted| wanted.to_string() == peer.to_string())) else {
            continue;
        };
        let fd = zerosend_sys::fd::duplicate(number).expect("a duplicate");
        let local = nix::sys::socket::getsockname::<nix::sys::socket::SockaddrIn>(number).expect("a name");
        if local.to_string() == client.local_addr().expect("an address").to_string() {
            continue;
        }
        assert!(nix::sys::socket::getsockopt(&fd, sockopt::KeepAlive).expect("an option"), "{peer}");
        assert_eq!(nix::sys::socket::getsockopt(&fd, sockopt::TcpKeepIdle), Ok(60));
        probed += 1;
    }
    assert_eq!(probed, 2);
}
