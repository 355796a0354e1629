//! The file of a Unix socket.

use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;
use zerosend_core::net::Address;
use zerosend_core::server::{Server, ServerOptions};

fn start(path: &std::path::Path) -> Result<Server, String> {
    let mut options = ServerOptions::new(Address::Unix(path.into()), Vec::new());
    options.workers = 1;
    Server::start(options).map_err(|error| error.to_string())
}

#[test]
fn a_live_socket_is_not_replaced() {
    let directory = TempDir::new().expect("a directory");
    let datagram = directory.path().join("datagram");
    let _owner = UnixDatagram::bind(&datagram).expect("bound");
    assert!(start(&datagram).is_err_and(|error| error.starts_with("EADDRINUSE")));
    let full = directory.path().join("full");
    let owner = UnixListener::bind(&full).expect("bound");
    nix::sys::socket::listen(&owner, nix::sys::socket::Backlog::new(1).expect("a backlog")).expect("listens");
    let queued: Vec<_> = (0..2).map(|_| UnixStream::connect(&full).expect("connected")).collect();
    assert!(
        start(&full).is_err_and(|error| error.starts_with("EADDRINUSE")),
        "a full backlog also means a live socket"
    );
    drop(queued);
    drop(owner);
    assert!(start(&full).is_ok(), "a stale socket is replaced");
}

/// Of several servers that find the same stale file, one replaces it, and no other removes the new one.
#[test]
fn one_server_replaces_a_stale_socket() {
    for _ in 0..20 {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("s");
        drop(UnixListener::bind(&path).expect("bound"));
        let started = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (path, started) = (path.clone(), started.clone());
                thread::spawn(move || {
                    let server = start(&path);
                    started.fetch_add(usize::from(server.is_ok()), Ordering::Relaxed);
                    server
                })
            })
            .collect();
        let servers: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        assert_eq!(started.load(Ordering::Relaxed), 1, "{:?}", servers.iter().map(Result::is_ok).collect::<Vec<_>>());
        UnixStream::connect(&path).expect("it listens at the path");
    }
}
