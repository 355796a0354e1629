//! Start, drain and close; sockets and files that change.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;
use zerosend_core::net::Address;
use zerosend_core::server::{Server, ServerOptions};

use super::server_support::{MIB, Running, body, pattern, read_until_closed, request_with_close, wait_for};

/// Size of `big.bin`.
const BIG: usize = 12 * MIB;

/// Receives when all workers have exited.
fn on_exit(running: &Running) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    running.server.on_exit(move || sender.send(()).expect("a receiver"));
    receiver
}

#[test]
fn close_waits_for_responses_in_flight() {
    let running = Running::new(|options, _| options.workers = 2);
    let mut idle = running.connect();
    let mut busy = running.connect();
    busy.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    busy.read_exact(&mut [0; 1000]).expect("a response");
    let exited = on_exit(&running);
    running.server.close(Duration::from_secs(20));
    assert_eq!(read_until_closed(&mut idle), "", "an idle connection is closed at once");
    assert!(exited.recv_timeout(Duration::from_millis(300)).is_err(), "the response is not complete yet");
    let mut rest = Vec::new();
    busy.read_to_end(&mut rest).expect("a complete response");
    assert!(rest.ends_with(&pattern(BIG)[BIG - 1000..]));
    exited.recv_timeout(Duration::from_secs(5)).expect("exited");
    let Address::Tcp(address) = running.server.address() else { panic!("a TCP server") };
    assert!(TcpStream::connect(address).is_err(), "the listener is closed");
}

#[test]
fn close_resets_responses_after_the_drain_time() {
    let running = Running::start();
    let mut busy = running.connect();
    busy.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    busy.read_exact(&mut [0; 1000]).expect("a response");
    let exited = on_exit(&running);
    running.server.close(Duration::from_millis(200));
    exited.recv_timeout(Duration::from_secs(5)).expect("exited");
    let mut rest = Vec::new();
    let _ = busy.read_to_end(&mut rest);
    assert!(rest.len() < BIG);
    assert_eq!(running.server.stats().aborted, 1);
}

#[test]
fn a_port_in_use_and_invalid_options_are_errors() {
    let running = Running::start();
    let taken = ServerOptions::new(running.server.address().clone(), Vec::new());
    let error = Server::start(taken).err().expect("refused");
    assert_eq!(error.to_string().split(' ').next(), Some("EADDRINUSE:"), "{error}");
    let mut invalid = ServerOptions::new(Address::Tcp(([127, 0, 0, 1], 0).into()), Vec::new());
    invalid.workers = 0;
    let error = Server::start(invalid).err().expect("refused");
    assert_eq!(error.to_string(), "invalid workers 0: use 1 to 1024");
}

#[test]
fn a_unix_socket_is_served_and_removed() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("s");
    let running = Running::new(|options, _| {
        options.address = Address::Unix(path.clone());
        options.workers = 2;
    });
    for _ in 0..10 {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("connected");
        stream.write_all(request_with_close("GET", "/a.txt", "").as_bytes()).expect("sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("text");
        assert_eq!(body(&response), "0123456789");
    }
    let exited = on_exit(&running);
    running.server.close(Duration::ZERO);
    exited.recv_timeout(Duration::from_secs(5)).expect("exited");
    assert!(!path.exists(), "the socket file is removed");
}

#[test]
fn a_file_truncated_while_it_is_sent_ends_the_connection() {
    let running = Running::start();
    let mut stream = running.connect();
    stream.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    stream.read_exact(&mut [0; 1000]).expect("a response");
    let file = fs::File::options().write(true).open(running.root.path().join("big.bin")).expect("big.bin");
    file.set_len(100).expect("truncated");
    let rest = read_until_closed(&mut stream);
    assert!(!rest.contains("HTTP/1.1 200"), "no response follows a truncated one");
    wait_for("the connections to close", || running.server.stats().connections == 0);
    assert_eq!(running.server.stats().failures, 1);
}
