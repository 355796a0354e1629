//! A relay without descriptors. In a process of its own, because it takes all of them.

mod relay_support;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use relay_support::{bytes, connect, receive, relay_to, send, settled, target};

/// Takes every descriptor that is left.
fn take_all() -> Vec<OwnedFd> {
    let standard = std::io::stdin();
    let mut taken = Vec::new();
    while let Ok(fd) = nix::unistd::dup(&standard) {
        taken.push(fd);
    }
    taken
}

#[test]
fn without_descriptors_bytes_go_through_user_space_and_clients_wait() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 100, hard).expect("a limit");
    let (listener, address) = target();
    let relay = relay_to(vec![address], |_| {});

    // A connection that is there goes on, without a pipe.
    let mut client = connect(&relay);
    let (server, _) = listener.accept().expect("a connection");
    let (sending, receiving) = (client.try_clone().expect("a clone"), server.try_clone().expect("a clone"));
    settled(&relay, |stats| stats.connections == 1);
    let mut all = take_all();
    let data = bytes(4 << 20, 8);
    thread::scope(|scope| {
        scope.spawn(|| send(sending, &data, &[100_000]));
        assert!(receive(receiving) == data);
    });
    drop(server);
    assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    drop(client);
    let stats = settled(&relay, |stats| stats.connections == 0);
    assert_eq!((stats.degraded, stats.client_failures, stats.target_failures), (1, 0, 0));

    // A new one waits until there is a descriptor for it. The first is for the client's own end.
    all.extend(take_all());
    all.pop();
    let mut client = connect(&relay);
    client.write_all(b"hello").expect("sent");
    settled(&relay, |stats| stats.refused > 0);
    let accepted = relay.stats().accepted;
    thread::sleep(Duration::from_millis(200));
    assert_eq!(relay.stats().accepted, accepted, "there is none");
    all.clear();
    let (mut server, _) = listener.accept().expect("a connection");
    let mut five = [0; 5];
    server.read_exact(&mut five).expect("received");
    assert_eq!(&five, b"hello");
}
