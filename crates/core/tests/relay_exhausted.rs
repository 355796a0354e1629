//! A relay without descriptors. A separate test binary, because it uses up the descriptors of its process.

mod relay_support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use relay_support::{bytes, connect, receive, relay_to, send, target, wait_for_stats};
use zerosend_core::relay::RelayMethod;

/// Opens descriptors until none are left.
fn open_all() -> Vec<OwnedFd> {
    let standard = std::io::stdin();
    let mut opened = Vec::new();
    while let Ok(fd) = nix::unistd::dup(&standard) {
        opened.push(fd);
    }
    opened
}

#[test]
fn without_descriptors_bytes_go_through_user_space_and_clients_stay_in_the_backlog() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 100, hard).expect("a limit");
    let (listener, address) = target();
    let relay = relay_to(vec![address.clone()], |_| {});

    // Open connections continue. One of them may find an idle pipe, so there are two.
    let clients = [connect(&relay), connect(&relay)];
    let servers = [(); 2].map(|()| listener.accept().expect("a connection").0);
    wait_for_stats(&relay, |stats| stats.connections == 2);
    let sending = clients.each_ref().map(|client| client.try_clone().expect("a clone"));
    let mut all = open_all();
    let data = bytes(32 << 20, 8);
    thread::scope(|scope| {
        for sending in sending {
            scope.spawn(|| send(sending, &data, &[100_000]));
        }
        let mut before = 0;
        wait_for_stats(&relay, |stats| {
            thread::sleep(Duration::from_millis(50));
            let steady = stats.bytes_up > 0 && stats.bytes_up == before;
            before = stats.bytes_up;
            steady
        });
        for server in servers {
            scope.spawn(|| assert!(receive(server) == data));
        }
    });
    drop(clients);
    let stats = wait_for_stats(&relay, |stats| stats.connections == 0);
    assert!(stats.degraded > 0, "{stats:?}");
    assert_eq!((stats.client_failures, stats.target_failures, stats.bytes_up), (0, 0, 64 << 20));

    // Without idle pipes a new connection waits for a descriptor.
    all.clear();
    let (exited, exit) = mpsc::channel();
    relay.on_exit(move || exited.send(()).expect("received"));
    drop(relay);
    exit.recv_timeout(Duration::from_secs(20)).expect("the relay exits");
    let relay = relay_to(vec![address], |options| options.method = RelayMethod::Splice);
    all.extend(open_all());
    // For the socket of the client.
    all.pop();
    let mut client = connect(&relay);
    client.write_all(b"hello").expect("sent");
    wait_for_stats(&relay, |stats| stats.refused > 0);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(relay.stats().accepted, 0, "no descriptor is free");
    all.clear();
    receive_hello(&listener);

    // Idle pipes are closed for it.
    client.shutdown(Shutdown::Both).expect("connected");
    wait_for_stats(&relay, |stats| stats.connections == 0);
    drop(client);
    all.extend(open_all());
    all.pop();
    let mut client = connect(&relay);
    client.write_all(b"hello").expect("sent");
    wait_for_stats(&relay, |stats| stats.accepted == 2);
    all.clear();
    receive_hello(&listener);
}

fn receive_hello(listener: &TcpListener) {
    let (mut server, _) = listener.accept().expect("a connection");
    let mut bytes = [0; 5];
    server.read_exact(&mut bytes).expect("received");
    assert_eq!(&bytes, b"hello");
}
