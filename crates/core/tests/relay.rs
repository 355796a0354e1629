//! Relays of TCP and Unix sockets.

mod relay_support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use relay_support::{
    any_port, bytes, closed_port, connect, descriptors, receive, relay_to, send, target, wait_for_stats,
};
use zerosend_core::net::Address;
use zerosend_core::relay::{Destination, ProxyProtocol, Relay, RelayMethod, RelayOptions};

const METHODS: [RelayMethod; 3] = [RelayMethod::Auto, RelayMethod::Splice, RelayMethod::ReadWrite];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn both_directions_deliver_all_bytes_whichever_ends_first(
        up in 0..600_000_usize,
        down in 0..600_000_usize,
        chunk_sizes in prop::collection::vec(1..70_000_usize, 1..8),
        splices: bool,
        pipe_size in prop::sample::select(vec![4096_usize, 65_536, 1 << 20]),
    ) {
        let (listener, address) = target();
        let method = METHODS[usize::from(!splices)];
        let relay = relay_to(vec![address], |options| {
            options.method = method;
            options.pipe_size = pipe_size;
        });
        let (up, down) = (bytes(up, 7), bytes(down, 11));
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                let (stream, _) = listener.accept().expect("a connection");
                stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
                let sending = stream.try_clone().expect("a clone");
                scope.spawn(|| send(sending, &down, &chunk_sizes));
                receive(stream)
            });
            let client = connect(&relay);
            let sending = client.try_clone().expect("a clone");
            scope.spawn(|| send(sending, &up, &chunk_sizes));
            assert!(receive(client) == down, "to the client");
            assert!(server.join().expect("the server") == up, "to the target");
        });
        let stats = wait_for_stats(&relay, |stats| stats.connections == 0);
        prop_assert_eq!((stats.bytes_up, stats.bytes_down), (up.len() as u64, down.len() as u64));
        prop_assert_eq!((stats.client_failures, stats.target_failures, stats.degraded), (0, 0, 0));
    }
}

#[test]
fn an_echo_returns_all_bytes() {
    for method in METHODS {
        let mut options = RelayOptions::new(any_port(), Destination::Echo);
        options.method = method;
        options.workers = 2;
        let relay = Relay::start(options).expect("a relay");
        let data = bytes(3_000_000, 5);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let client = connect(&relay);
                    let sending = client.try_clone().expect("a clone");
                    scope.spawn(|| send(sending, &data, &[10_000, 1, 300_000]));
                    assert!(receive(client) == data);
                });
            }
        });
        wait_for_stats(&relay, |stats| stats.connections == 0 && stats.client_failures == 0);
    }
}

#[test]
fn a_reset_of_one_side_resets_the_other() {
    for client_resets in [true, false] {
        let (listener, address) = target();
        let relay = relay_to(vec![address], |_| {});
        let mut client = connect(&relay);
        client.write_all(b"hello").expect("sent");
        let (mut server, _) = listener.accept().expect("a connection");
        server.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let mut five = [0; 5];
        server.read_exact(&mut five).expect("received");
        let (resetting, mut other) = if client_resets { (client, server) } else { (server, client) };
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&resetting, nix::sys::socket::sockopt::Linger, &linger).expect("an option");
        drop(resetting);
        let error = other.read(&mut five).expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "client resets: {client_resets}");
        wait_for_stats(&relay, |stats| stats.connections == 0 && stats.client_failures + stats.target_failures == 1);
    }
}

#[test]
fn a_target_that_is_down_is_skipped_and_tried_again_later() {
    let (listener, address) = target();
    let relay = relay_to(vec![closed_port(), address], |options| options.down_time = Duration::from_millis(300));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.expect("a connection").write_all(b"here");
        }
    });
    for _ in 0..4 {
        assert_eq!(receive(connect(&relay)), b"here");
    }
    assert_eq!(relay.stats().retries, 1, "only the first connection tried the closed port");
    thread::sleep(Duration::from_millis(350));
    for _ in 0..2 {
        assert_eq!(receive(connect(&relay)), b"here");
    }
    assert_eq!(relay.stats().retries, 2);
}

#[test]
fn a_client_is_reset_when_no_target_can_be_connected_to() {
    let relay = relay_to(vec![closed_port(), Address::Unix("/nowhere/at/all".into())], |_| {});
    let error = connect(&relay).read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let stats = wait_for_stats(&relay, |stats| stats.unreachable == 1);
    assert_eq!((stats.retries, stats.connections), (1, 0));
}

#[test]
fn a_target_that_does_not_answer_times_out() {
    // A full backlog: the kernel drops further SYN segments.
    let (listener, address) = target();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).expect("a length")).expect("listening");
    let Address::Tcp(full) = address.clone() else { unreachable!() };
    let _fill: Vec<_> =
        (0..3).filter_map(|_| TcpStream::connect_timeout(&full, Duration::from_millis(200)).ok()).collect();
    let relay = relay_to(vec![address], |options| options.connect_timeout = Duration::from_millis(150));
    assert!(connect(&relay).read(&mut [0]).is_err());
    wait_for_stats(&relay, |stats| stats.connect_timeouts == 1 && stats.unreachable == 1 && stats.connections == 0);
}

#[test]
fn idle_connections_hold_no_pipes_and_time_out() {
    let (listener, address) = target();
    let relay = relay_to(vec![address], |options| options.idle_timeout = Duration::from_millis(400));
    let before = descriptors();
    let mut pairs = Vec::new();
    for _ in 0..50 {
        let mut client = connect(&relay);
        client.write_all(b"x").expect("sent");
        let (mut server, _) = listener.accept().expect("a connection");
        server.read_exact(&mut [0]).expect("received");
        pairs.push((client, server));
    }
    // Four sockets for each connection; other tests of this process open descriptors too, but not fifty pipes.
    assert!(descriptors() <= before + 50 * 4 + 90, "{} descriptors", descriptors() - before);
    for (client, server) in &mut pairs {
        for side in [client, server] {
            let error = side.read(&mut [0]).expect_err("a reset, not the end of the stream");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    wait_for_stats(&relay, |stats| stats.idle_timeouts == 50 && stats.connections == 0);
}

#[test]
fn bytes_go_through_user_space_without_pipes() {
    let (listener, address) = target();
    let relay = relay_to(vec![address], |options| options.pipes = 0);
    // More than the sockets hold, so that writes of the relay are partial.
    let data = bytes(16 << 20, 3);
    let client = connect(&relay);
    let (server, _) = listener.accept().expect("a connection");
    thread::scope(|scope| {
        scope.spawn(|| send(client.try_clone().expect("a clone"), &data, &[100_000]));
        thread::sleep(Duration::from_millis(200));
        assert!(receive(server.try_clone().expect("a clone")) == data);
    });
    drop((client, server));
    wait_for_stats(&relay, |stats| stats.degraded == 1 && stats.bytes_up == 16 << 20);
}

#[test]
fn a_unix_target_receives_the_proxy_header_first() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("target.sock");
    let listener = UnixListener::bind(&path).expect("a listener");
    for (protocol, length) in [(ProxyProtocol::V1, None), (ProxyProtocol::V2, Some(28))] {
        let relay = relay_to(vec![Address::Unix(path.clone())], |options| options.proxy_protocol = Some(protocol));
        let mut client = connect(&relay);
        let local: SocketAddr = client.local_addr().expect("an address");
        client.write_all(b"body").expect("sent");
        client.shutdown(Shutdown::Write).expect("shut down");
        let (mut server, _) = listener.accept().expect("a connection");
        let mut all = Vec::new();
        server.read_to_end(&mut all).expect("received");
        match length {
            None => {
                let Some(Address::Tcp(bound)) = relay.address() else { unreachable!() };
                let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nbody", local.port(), bound.port());
                assert_eq!(String::from_utf8_lossy(&all), header);
            }
            Some(length) => {
                assert_eq!(&all[length..], b"body");
                assert_eq!(all[24..26], local.port().to_be_bytes());
            }
        }
    }
}

#[test]
fn a_slow_reader_holds_back_its_sender() {
    let (listener, address) = target();
    let relay = relay_to(vec![address], |_| {});
    let mut client = connect(&relay);
    let (server, _) = listener.accept().expect("a connection");
    client.set_nonblocking(true).expect("a mode");
    let chunk = vec![1; 1 << 20];
    let mut sent = 0_usize;
    let mut blocked = 0;
    while blocked < 20 {
        match client.write(&chunk) {
            Ok(count) => {
                sent += count;
                blocked = 0;
            }
            Err(_) => {
                blocked += 1;
                thread::sleep(Duration::from_millis(10));
            }
        }
        assert!(sent < 64 << 20, "the relay accepts bytes without limit although the target does not read");
    }
    drop(client);
    assert_eq!(receive(server).len(), sent);
}

#[test]
fn close_waits_for_connections_and_then_resets_them() {
    let (listener, address) = target();
    let relay = relay_to(vec![address], |_| {});
    let (mut one, mut two) = (connect(&relay), connect(&relay));
    let (mut first, _) = listener.accept().expect("a connection");
    let (_second, _) = listener.accept().expect("a connection");
    one.write_all(b"1").expect("sent");
    first.read_exact(&mut [0]).expect("received");
    relay.close(Duration::from_millis(500));
    thread::sleep(Duration::from_millis(50));
    let Some(Address::Tcp(address)) = relay.address() else { unreachable!() };
    assert!(TcpStream::connect(address).is_err());
    first.write_all(b"still here").expect("sent");
    drop(first);
    assert_eq!(receive(one.try_clone().expect("a clone")), b"still here");
    drop(one);
    let (sender, exited) = std::sync::mpsc::channel();
    relay.on_exit(move || sender.send(()).expect("a receiver"));
    exited.recv_timeout(Duration::from_secs(5)).expect("the end");
    assert!(two.read(&mut [0]).is_err(), "a reset");
    assert_eq!(relay.stats().forced_closes, 1);
}

#[test]
fn thousands_of_connections_leave_no_descriptors_open() {
    let (listener, address) = target();
    let relay = relay_to(vec![address], |_| {});
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut byte = [0];
            let _ = stream.read(&mut byte).and_then(|_| stream.write(&byte));
        }
    });
    let once = || {
        let mut client = connect(&relay);
        client.write_all(b"x").expect("sent");
        assert_eq!(receive(client), b"x");
    };
    once();
    wait_for_stats(&relay, |stats| stats.connections == 0);
    let before = descriptors();
    let count = std::env::var("ZEROSEND_CONNECTIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(2000);
    for _ in 0..count {
        once();
    }
    wait_for_stats(&relay, |stats| stats.connections == 0);
    // Other tests of this process open descriptors too.
    assert!(descriptors() < before + 500, "{} before, {} after", before, descriptors());
}

#[test]
fn a_resolver_chooses_the_target_of_each_connection() {
    let (listener, address) = target();
    let (sender, requests) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let resolver = move |request| sender.lock().expect("a lock").send(request).expect("a receiver");
    let mut options = RelayOptions::new(any_port(), Destination::Resolver(std::sync::Arc::new(resolver)));
    options.workers = 1;
    options.connect_timeout = Duration::from_millis(400);
    let relay = Relay::start(options).expect("a relay");

    // The first address refuses the connection, so there is another request.
    let client = connect(&relay);
    let first = requests.recv().expect("a request");
    assert_eq!(first.client, client.local_addr().ok());
    relay.resolve_target(first.id, Some(closed_port()));
    let second = requests.recv().expect("a request");
    assert_eq!((first.id.numbers().2, second.id.numbers().2), (0, 1));
    relay.resolve_target(first.id, None);
    relay.resolve_target(second.id, Some(address));
    let (mut server, _) = listener.accept().expect("a connection");
    server.write_all(b"here").expect("sent");
    drop(server);
    assert_eq!(receive(client), b"here");

    // No address, and no answer.
    let mut refused = connect(&relay);
    relay.resolve_target(requests.recv().expect("a request").id, None);
    assert!(refused.read(&mut [0]).is_err(), "a reset");
    let mut unanswered = connect(&relay);
    assert!(unanswered.read(&mut [0]).is_err(), "a reset");
    let stats = wait_for_stats(&relay, |stats| stats.connections == 0 && stats.unreachable == 2);
    assert_eq!((stats.connect_timeouts, stats.target_failures), (3, 0));
}
