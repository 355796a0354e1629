//! Relays over real sockets.

mod relay_support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use relay_support::{anywhere, bytes, closed_port, connect, descriptors, receive, relay_to, send, settled, target};
use zerosend_core::net::Address;
use zerosend_core::relay::{Destination, ProxyProtocol, Relay, RelayMethod, RelayOptions};

const METHODS: [RelayMethod; 3] = [RelayMethod::Auto, RelayMethod::Splice, RelayMethod::ReadWrite];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_sent_arrives_in_both_directions_whoever_ends_first(
        up in 0..600_000_usize,
        down in 0..600_000_usize,
        pieces in prop::collection::vec(1..70_000_usize, 1..8),
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
                scope.spawn(|| send(sending, &down, &pieces));
                receive(stream)
            });
            let client = connect(&relay);
            let sending = client.try_clone().expect("a clone");
            scope.spawn(|| send(sending, &up, &pieces));
            assert!(receive(client) == down, "to the client");
            assert!(server.join().expect("the server") == up, "to the target");
        });
        let stats = settled(&relay, |stats| stats.connections == 0);
        prop_assert_eq!((stats.bytes_up, stats.bytes_down), (up.len() as u64, down.len() as u64));
        prop_assert_eq!((stats.client_failures, stats.target_failures, stats.degraded), (0, 0, 0));
    }
}

#[test]
fn an_echo_gives_back_all_of_it() {
    for method in METHODS {
        let mut options = RelayOptions::new(anywhere(), Destination::Echo);
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
        settled(&relay, |stats| stats.connections == 0 && stats.client_failures == 0);
    }
}

#[test]
fn a_reset_of_either_side_is_a_reset_of_the_other() {
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
        settled(&relay, |stats| stats.connections == 0 && stats.client_failures + stats.target_failures == 1);
    }
}

#[test]
fn a_target_that_is_down_is_passed_over_and_tried_again_later() {
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
    assert_eq!(relay.stats().retries, 1, "only the first went to the wrong one");
    thread::sleep(Duration::from_millis(350));
    for _ in 0..2 {
        assert_eq!(receive(connect(&relay)), b"here");
    }
    assert_eq!(relay.stats().retries, 2);
}

#[test]
fn without_any_target_the_client_is_reset() {
    let relay = relay_to(vec![closed_port(), Address::Unix("/nowhere/at/all".into())], |_| {});
    let error = connect(&relay).read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let stats = settled(&relay, |stats| stats.unreachable == 1);
    assert_eq!((stats.retries, stats.connections), (1, 0));
}

#[test]
fn a_target_that_does_not_answer_is_given_up() {
    // A queue of one that is full: the kernel drops what comes after.
    let (listener, address) = target();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).expect("a length")).expect("listening");
    let Address::Tcp(full) = address.clone() else { unreachable!() };
    let _fill: Vec<_> =
        (0..3).filter_map(|_| TcpStream::connect_timeout(&full, Duration::from_millis(200)).ok()).collect();
    let relay = relay_to(vec![address], |options| options.connect_timeout = Duration::from_millis(150));
    assert!(connect(&relay).read(&mut [0]).is_err());
    settled(&relay, |stats| stats.connect_timeouts == 1 && stats.unreachable == 1 && stats.connections == 0);
}

#[test]
fn idle_connections_hold_no_pipes_and_end_after_their_time() {
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
    // Two sockets here and two there for each, and one pipe that all have used in turn.
    assert!(descriptors() <= before + 50 * 4 + 2, "{} descriptors", descriptors() - before);
    for (client, server) in &mut pairs {
        for side in [client, server] {
            let error = side.read(&mut [0]).expect_err("neither stream has ended");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    settled(&relay, |stats| stats.idle_timeouts == 50 && stats.connections == 0);
}

#[test]
fn without_pipes_bytes_go_through_user_space() {
    let (listener, address) = target();
    let relay = relay_to(vec![address], |options| options.pipes = 0);
    // More than the sockets hold: the relay's writes end in the middle of its buffer.
    let data = bytes(16 << 20, 3);
    let client = connect(&relay);
    let (server, _) = listener.accept().expect("a connection");
    thread::scope(|scope| {
        scope.spawn(|| send(client.try_clone().expect("a clone"), &data, &[100_000]));
        thread::sleep(Duration::from_millis(200));
        assert!(receive(server.try_clone().expect("a clone")) == data);
    });
    drop((client, server));
    settled(&relay, |stats| stats.degraded == 1 && stats.bytes_up == 16 << 20);
}

#[test]
fn unix_sockets_and_the_proxy_protocol() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("target.sock");
    let listener = UnixListener::bind(&path).expect("a listener");
    for (protocol, length) in [(ProxyProtocol::V1, None), (ProxyProtocol::V2, Some(28))] {
        let relay = relay_to(vec![Address::Unix(path.clone())], |options| options.proxy_protocol = Some(protocol));
        let mut client = connect(&relay);
        let own: SocketAddr = client.local_addr().expect("an address");
        client.write_all(b"body").expect("sent");
        client.shutdown(Shutdown::Write).expect("half-closed");
        let (mut server, _) = listener.accept().expect("a connection");
        let mut all = Vec::new();
        server.read_to_end(&mut all).expect("received");
        match length {
            None => {
                let Some(Address::Tcp(bound)) = relay.address() else { unreachable!() };
                let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nbody", own.port(), bound.port());
                assert_eq!(String::from_utf8_lossy(&all), header);
            }
            Some(length) => {
                assert_eq!(&all[length..], b"body");
                assert_eq!(all[24..26], own.port().to_be_bytes());
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
    let piece = vec![1; 1 << 20];
    let mut sent = 0_usize;
    let mut stuck = 0;
    while stuck < 20 {
        match client.write(&piece) {
            Ok(count) => {
                sent += count;
                stuck = 0;
            }
            Err(_) => {
                stuck += 1;
                thread::sleep(Duration::from_millis(10));
            }
        }
        assert!(sent < 64 << 20, "nobody reads, and still it takes all");
    }
    drop(client);
    assert_eq!(receive(server).len(), sent);
}

#[test]
fn close_lets_connections_end_and_then_cuts() {
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
    let (told, hears) = std::sync::mpsc::channel();
    relay.on_exit(move || told.send(()).expect("somebody who hears"));
    hears.recv_timeout(Duration::from_secs(5)).expect("the end");
    assert!(two.read(&mut [0]).is_err(), "a reset");
    assert_eq!(relay.stats().forced_closes, 1);
}

#[test]
fn thousands_of_connections_leave_nothing_behind() {
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
    settled(&relay, |stats| stats.connections == 0);
    let before = descriptors();
    let count = std::env::var("ZEROSEND_CONNECTIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(2000);
    for _ in 0..count {
        once();
    }
    settled(&relay, |stats| stats.connections == 0);
    // Other tests of this process open descriptors as well.
    assert!(descriptors() < before + 500, "{} before, {} after", before, descriptors());
}

#[test]
fn somebody_is_asked_where_connections_go_to() {
    let (listener, address) = target();
    let (sender, questions) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let asked = move |question| sender.lock().expect("a lock").send(question).expect("somebody who answers");
    let mut options = RelayOptions::new(anywhere(), Destination::Resolver(std::sync::Arc::new(asked)));
    options.workers = 1;
    options.connect_timeout = Duration::from_millis(400);
    let relay = Relay::start(options).expect("a relay");

    // The first address does not answer: there is another question.
    let client = connect(&relay);
    let first = questions.recv().expect("a question");
    assert_eq!(first.client, client.local_addr().ok());
    relay.resolve_target(first.id, Some(closed_port()));
    let second = questions.recv().expect("a question");
    assert_eq!((first.id.numbers().2, second.id.numbers().2), (0, 1));
    relay.resolve_target(first.id, None);
    relay.resolve_target(second.id, Some(address));
    let (mut server, _) = listener.accept().expect("a connection");
    server.write_all(b"here").expect("sent");
    drop(server);
    assert_eq!(receive(client), b"here");

    // Nowhere, and no answer at all.
    let mut refused = connect(&relay);
    relay.resolve_target(questions.recv().expect("a question").id, None);
    assert!(refused.read(&mut [0]).is_err(), "a reset");
    let mut unanswered = connect(&relay);
    assert!(unanswered.read(&mut [0]).is_err(), "a reset");
    let stats = settled(&relay, |stats| stats.connections == 0 && stats.unreachable == 2);
    assert_eq!((stats.connect_timeouts, stats.target_failures), (3, 0));
}
