//! A panic at each fail point of the server ends one connection and is counted. The client gets a 500 response if no part of another
//! response has been sent.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use zerosend_core::net::Address;
use zerosend_core::server::{ListFormat, Mount, Server, ServerOptions};
use zerosend_core::static_site::{Site, SiteOptions};

const BIG: usize = 12 * 1024 * 1024;

struct Running {
    server: Server,
    _root: TempDir,
}

impl Running {
    /// One worker, a small file, a large one, and a directory that is listed on the pool.
    fn new() -> Self {
        let root = TempDir::new().expect("a directory");
        std::fs::write(root.path().join("a.txt"), b"0123456789").expect("a file");
        std::fs::write(root.path().join("big.bin"), vec![b'x'; BIG]).expect("a file");
        let site = SiteOptions { listing: true, redirect: true, ..SiteOptions::default() };
        let mut mount = Mount::new("/", Arc::new(Site::new(vec![root.path().into()], site).expect("a site")));
        mount.list = Some(ListFormat::Json);
        let mut options = ServerOptions::new(Address::Tcp(([127, 0, 0, 1], 0).into()), vec![mount]);
        options.workers = 1;
        Self { server: Server::start(options).expect("a server"), _root: root }
    }

    fn connect(&self) -> TcpStream {
        let Address::Tcp(address) = self.server.address() else { panic!("a TCP server") };
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream
    }

    fn get(&self, target: &str) -> String {
        let mut stream = self.connect();
        send(&mut stream, target, "Connection: close\r\n");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("a clean end");
        response
    }

    fn wait_for(&self, condition: impl Fn(&Server) -> bool) {
        let began = Instant::now();
        while !condition(&self.server) {
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", self.server.stats());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn send(stream: &mut TcpStream, target: &str, fields: &str) {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes()).expect("sent");
}

fn panic_once(place: &str) {
    fail::cfg(place, "1*panic(injected)->off").expect("a fail point");
}

#[test]
fn a_panic_ends_one_connection_with_a_500_response() {
    super::silence_injected_panics();
    let _scenario = fail::FailScenario::setup();
    for (place, target) in
        [("server::turn", "/a.txt"), ("server::message", "/"), ("pool::job", "/"), ("server::message", "/a.txt")]
    {
        let running = Running::new();
        let mut other = running.connect();
        send(&mut other, "/big.bin", "");
        running.wait_for(|server| server.stats().requests == 1);
        panic_once(place);
        let response = running.get(target);
        if place == "server::message" && target == "/a.txt" {
            // A file in the page cache needs no message, so the fail point is not reached yet.
            assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        } else {
            assert!(response.starts_with("HTTP/1.1 500 "), "{place}: {response}");
            assert_eq!(running.server.stats().failures, 1, "{place}");
            assert!(running.get(target).starts_with("HTTP/1.1 200 "), "{place}: the next request is served");
        }
        let mut all = Vec::new();
        running.server.close(Duration::from_secs(20));
        other.read_to_end(&mut all).expect("the other response");
        assert!(all.len() > BIG);
        let (sender, exited) = mpsc::channel();
        running.server.on_exit(move || sender.send(()).expect("a receiver"));
        exited.recv_timeout(Duration::from_secs(20)).expect("exited");
        fail::cfg(place, "off").expect("a fail point");
    }
}

#[test]
fn a_panic_during_a_response_resets_the_connection() {
    super::silence_injected_panics();
    let _scenario = fail::FailScenario::setup();
    let running = Running::new();
    let mut stream = running.connect();
    send(&mut stream, "/big.bin", "");
    stream.read_exact(&mut [0; 1000]).expect("a response");
    panic_once("server::turn");
    let error = stream.read_to_end(&mut Vec::new()).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    running.wait_for(|server| server.stats().connections == 0);
    assert_eq!((running.server.stats().failures, running.server.stats().aborted), (1, 1));
}

#[test]
fn a_panic_at_accept_ends_that_connection() {
    super::silence_injected_panics();
    let _scenario = fail::FailScenario::setup();
    let running = Running::new();
    panic_once("server::accept");
    let mut stream = running.connect();
    let _ = stream.read_to_end(&mut Vec::new());
    running.wait_for(|server| server.stats().failures == 1);
    assert!(running.get("/a.txt").ends_with("0123456789"));
    running.wait_for(|server| server.stats().connections == 0);
}
