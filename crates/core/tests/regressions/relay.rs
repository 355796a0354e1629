//! Relays.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::relay_support::{anywhere, bytes, connect, receive, relay_to, settled, target};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};
use zerosend_core::reactor::NonBlocking;
use zerosend_core::relay::{
    Destination, Join, LinkReport, Outcome, Party, Policy, Relay, RelayMethod, RelayOptions, Sink,
};
use zerosend_core::server::Address;

const METHODS: [RelayMethod; 3] = [RelayMethod::Auto, RelayMethod::Splice, RelayMethod::ReadWrite];
/// Runs a test with each method, side by side.
fn with_each_method(test: impl Fn(RelayMethod) + Sync) {
    thread::scope(|scope| {
        for method in METHODS {
            let test = &test;
            scope.spawn(move || test(method));
        }
    });
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the close of a socket a reset.
fn reset_on_close(socket: &TcpStream) {
    setsockopt(socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).expect("an option");
}

/// Reads to the end or to an error: the bytes, and whether the end was clean.
fn read_out(mut stream: impl Read) -> (Vec<u8>, bool) {
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
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    }
    (one, two)
}

fn nonblocking(fd: impl Into<std::os::fd::OwnedFd>) -> NonBlocking {
    NonBlocking::new(fd.into()).expect("a descriptor")
}

fn join(
    relay: &Relay,
    client: TcpStream,
    target: Option<NonBlocking>,
    sinks: Vec<Sink>,
) -> std::sync::mpsc::Receiver<LinkReport> {
    let (tell, hears) = channel();
    let join = Join {
        client: nonblocking(client),
        one_way: !sinks.is_empty() || target.is_none(),
        target,
        first: [Vec::new(), Vec::new()],
        sinks,
        policy: Policy::Block,
        ended: Box::new(move |report| drop(tell.send(report))),
    };
    relay.join(join).expect("joined");
    hears
}

fn joining(method: RelayMethod) -> Relay {
    let mut options = RelayOptions::joining();
    options.method = method;
    Relay::start(options).expect("a relay")
}

/// Reads 100 bytes, answers, and closes with the rest unread, which is a reset.
fn answer_and_reset(mut server: TcpStream, answer: &[u8]) {
    server.read_exact(&mut [0; 100]).expect("received");
    server.write_all(answer).expect("sent");
}

#[test]
fn an_answer_before_a_reset_is_delivered() {
    with_each_method(|method| {
        let (listener, address) = target();
        let relay = relay_to(vec![address], |options| options.method = method);
        thread::scope(|scope| {
            scope.spawn(|| (0..150).for_each(|_| answer_and_reset(listener.accept().expect("one").0, b"answer")));
            for attempt in 0..150 {
                let mut client = connect(&relay);
                client.write_all(&[1; 3000]).expect("sent");
                let (got, clean) = read_out(&client);
                assert_eq!(got, b"answer", "{method:?}, {attempt}");
                assert!(!clean, "{method:?}: a reset follows");
            }
        });
        settled(&relay, |stats| stats.connections == 0);
    });
}

#[test]
fn a_long_answer_before_a_reset_reaches_a_slow_reader_whole() {
    let answer = bytes(600_000, 9);
    with_each_method(|method| {
        let (listener, address) = target();
        let relay = relay_to(vec![address], |options| options.method = method);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut server, _) = listener.accept().expect("one");
                server.read_exact(&mut [0; 100]).expect("received");
                server.write_all(&answer).expect("sent");
                // All of it is with the relay's kernel before the reset, which would take back the rest.
                while unacknowledged(&server) > 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let mut client = connect(&relay);
            setsockopt(&client, sockopt::RcvBuf, &65_536).expect("an option");
            client.write_all(&[1; 3000]).expect("sent");
            let mut got = Vec::new();
            let mut piece = vec![0; 4096];
            let clean = loop {
                thread::sleep(Duration::from_millis(1));
                match client.read(&mut piece) {
                    Ok(0) => break true,
                    Ok(count) => got.extend_from_slice(&piece[..count]),
                    Err(_) => break false,
                }
            };
            assert!(got == answer, "{method:?}: {} bytes", got.len());
            assert!(!clean, "{method:?}: a reset follows");
        });
    });
}

fn unacknowledged(socket: &TcpStream) -> u64 {
    zerosend_core::sys::socket::unacknowledged(socket.as_fd()).expect("a count")
}

#[test]
fn what_a_client_sends_before_its_reset_reaches_the_target() {
    let data = bytes(200_000, 3);
    with_each_method(|method| {
        let (listener, address) = target();
        let relay = relay_to(vec![address], |options| options.method = method);
        for _ in 0..20 {
            let mut client = connect(&relay);
            client.write_all(&data).expect("sent");
            // With the relay's kernel, for a reset discards what is not.
            while unacknowledged(&client) > 0 {
                thread::yield_now();
            }
            reset_on_close(&client);
            drop(client);
            let (server, _) = listener.accept().expect("a connection");
            server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let (got, clean) = read_out(server);
            assert!(got == data, "{method:?}: {} bytes", got.len());
            assert!(!clean, "{method:?}: a reset follows");
        }
        settled(&relay, |stats| stats.connections == 0 && stats.client_failures == 20);
    });
}

#[test]
fn an_answer_before_a_reset_passes_joined_sockets_and_unix_sockets() {
    with_each_method(|method| {
        let relay = joining(method);
        for _ in 0..20 {
            let ((mut a, a_inside), (b, b_inside)) = (pair(), pair());
            let ended = join(&relay, a_inside, Some(nonblocking(b_inside)), Vec::new());
            a.write_all(&[1; 3000]).expect("sent");
            answer_and_reset(b, b"answer");
            assert_eq!(read_out(&a), (b"answer".to_vec(), false), "{method:?}");
            let report = ended.recv_timeout(PATIENCE).expect("a report");
            assert!(matches!(report.outcome, Outcome::Failed(Party::Target, _)), "{report:?}");
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
            assert_eq!(read_out(&client).0, b"answer", "{method:?}");
        }
    });
}

#[test]
fn sinks_get_what_came_before_the_reset_of_their_source() {
    let data = bytes(300_000, 5);
    with_each_method(|method| {
        let relay = joining(method);
        for _ in 0..10 {
            let ((mut source, inside), (one, one_inside), (two, two_inside)) = (pair(), pair(), pair());
            let sinks = vec![Sink::Stream(nonblocking(two_inside))];
            let ended = join(&relay, inside, Some(nonblocking(one_inside)), sinks);
            thread::scope(|scope| {
                let got = scope.spawn(|| read_out(one).0);
                let copy = scope.spawn(|| read_out(two).0);
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
            let report = ended.recv_timeout(PATIENCE).expect("a report");
            assert!(matches!(report.outcome, Outcome::Failed(Party::Client, _)), "{report:?}");
            assert_eq!((report.up, report.taps[0].bytes), (300_000, 300_000));
        }
    });
}

#[test]
fn an_idle_timeout_spares_a_slow_reader_and_ends_in_a_reset() {
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
                // Neither an end nor more.
                let (_, clean) = read_out(server);
                assert!(!clean, "{method:?}: the target takes the end for an end");
            });
            let mut client = connect(&relay);
            setsockopt(&client, sockopt::RcvBuf, &65_536).expect("an option");
            let mut got = Vec::new();
            let mut piece = vec![0; 32 * 1024];
            let begun = Instant::now();
            let clean = loop {
                // The relay has written its last long before the client has read it.
                thread::sleep(Duration::from_millis(50));
                match client.read(&mut piece) {
                    Ok(0) => break true,
                    Ok(count) => got.extend_from_slice(&piece[..count]),
                    Err(_) => break false,
                }
            };
            assert!(got == data, "{method:?}: {} bytes after {:?}", got.len(), begun.elapsed());
            assert!(!clean, "{method:?}: a clean end of a stream that was cut");
        });
        settled(&relay, |stats| stats.idle_timeouts == 1);
    });
}

#[test]
fn short_reads_are_not_taken_for_an_empty_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    with_each_method(|method| {
        // Descriptors end a read of a Unix socket.
        let (listener, address) = target();
        let path = directory.path().join(format!("{method:?}"));
        let mut options = RelayOptions::new(
            Address::Unix(path.clone()),
            Destination::Targets(vec![address], zerosend_core::relay::Balance::RoundRobin),
        );
        options.workers = 1;
        options.method = method;
        let relay = Relay::start(options).expect("a relay");
        let mut client = UnixStream::connect(&path).expect("connected");
        let (mut server, _) = listener.accept().expect("a connection");
        server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut six = [0; 6];
        for _ in 0..20 {
            let fds = [std::io::stdin().as_raw_fd()];
            let rights = [ControlMessage::ScmRights(&fds)];
            let slices = [std::io::IoSlice::new(b"abc")];
            sendmsg::<()>(client.as_raw_fd(), &slices, &rights, MsgFlags::empty(), None).expect("sent");
            client.write_all(b"def").expect("sent");
            server.read_exact(&mut six).expect("all at once");
            assert_eq!(&six, b"abcdef", "{method:?}");
        }
        drop(relay);

        // Urgent data ends one of a TCP socket, and stops splice(2).
        let (listener, address) = target();
        let relay = relay_to(vec![address], |options| options.method = method);
        let client = connect(&relay);
        let (mut server, _) = listener.accept().expect("a connection");
        server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut seven = [0; 7];
        for _ in 0..20 {
            (&client).write_all(b"abc").expect("sent");
            nix::sys::socket::send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("sent");
            (&client).write_all(b"def").expect("sent");
            server.read_exact(&mut seven).expect("all at once");
            assert_eq!(&seven, b"abc!def", "{method:?}");
        }
        // The end comes with it.
        (&client).write_all(b"abc").expect("sent");
        nix::sys::socket::send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("sent");
        (&client).write_all(b"def").expect("sent");
        client.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(receive(server), b"abc!def", "{method:?}");
    });
}

#[test]
fn an_echo_loses_nothing_to_urgent_data() {
    with_each_method(|method| {
        let mut options = RelayOptions::new(anywhere(), Destination::Echo);
        options.method = method;
        let relay = Relay::start(options).expect("a relay");
        let client = connect(&relay);
        (&client).write_all(b"abc").expect("sent");
        nix::sys::socket::send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("sent");
        (&client).write_all(b"def").expect("sent");
        client.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(receive(client), b"abc!def", "{method:?}");
    });
}
