//! Lingering close, RFC 9112 section 9.6: unread bytes from the client do not destroy a complete response, and an incomplete one ends
//! in a reset.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use crate::server_support::{MIB, Running, pattern, read_response, read_to_end, request, wait_for};

/// Longer than the server takes to close a connection without lingering.
const PAUSE: Duration = Duration::from_millis(150);

#[test]
fn requests_after_the_last_one_do_not_destroy_its_response() {
    let running = Running::new(|options, _| options.limits.requests_per_connection = 2);
    for round in 0..10 {
        let mut stream = running.connect();
        stream.write_all([request("/a.txt", ""), request("/mib.bin", "")].concat().as_bytes()).expect("sent");
        if round > 3 {
            thread::sleep(PAUSE / 15);
        }
        stream.write_all(request("/mib.bin", "").as_bytes()).expect("sent");
        if round % 2 == 1 {
            // EPOLLHUP: the connection is shut down on both sides. The server still has bytes to discard.
            stream.shutdown(Shutdown::Write).expect("half-closed");
        }
        thread::sleep(PAUSE / 5);
        assert_eq!(read_response(&mut stream).1, b"0123456789");
        assert!(read_response(&mut stream).1 == pattern(MIB), "the second response is complete");
        assert_eq!(read_to_end(&mut stream), b"", "the stream ends without a reset");
    }
}

#[test]
fn bytes_after_connection_close_do_not_destroy_the_response() {
    let running = Running::start();
    for (when, fields) in [("at once", "Connection: close\r\n"), ("later", "Connection: close\r\n"), ("later", "")] {
        let version = if fields.is_empty() { "1.0" } else { "1.1" };
        let mut stream = running.connect();
        let head = format!("GET /mib.bin HTTP/{version}\r\nHost: x\r\n{fields}\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        if when == "at once" {
            stream.write_all(b"x").expect("sent");
        }
        thread::sleep(PAUSE);
        for _ in 0..5 {
            stream.write_all(&[b'x'; 5000]).expect("sent");
            thread::sleep(PAUSE / 10);
        }
        assert!(read_response(&mut stream).1 == pattern(MIB), "{when} {version}");
        assert_eq!(read_to_end(&mut stream), b"");
    }
}

#[test]
fn error_responses_reach_a_client_that_still_sends() {
    let running = Running::start();
    let long = "a".repeat(20_000);
    for (head, expected) in [
        ("BAD\r\n\r\n".to_owned(), 400),
        (request("/a.txt", "Content-Length: 70000\r\n"), 413),
        (request(&format!("/{long}"), ""), 414),
        (request("/a.txt", &format!("X: {long}\r\n")), 431),
        (request("/a.txt", "Transfer-Encoding: gzip, chunked\r\n"), 501),
        ("GET / HTTP/3.0\r\nHost: x\r\n\r\n".to_owned(), 505),
        (request("/a.txt", "Expect: the-moon\r\nConnection: close\r\n"), 417),
        (request("/a.txt", "Expect: 100-continue\r\nContent-Length: 9\r\n"), 200),
        ("HEAD /big.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 200),
    ] {
        let mut stream = running.connect();
        stream.write_all(head.as_bytes()).expect("sent");
        for _ in 0..30 {
            stream.write_all(&[b'x'; 10_000]).unwrap_or_else(|error| panic!("{expected}: {error}"));
            thread::sleep(Duration::from_millis(1));
        }
        let response = String::from_utf8_lossy(&read_to_end(&mut stream)).into_owned();
        assert_eq!(crate::server_support::status(&response), expected, "{response}");
    }
}

#[test]
fn an_invalid_body_does_not_destroy_the_response() {
    let running = Running::start();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    for body in [chunk.repeat(40), format!("zz\r\n{chunk}{chunk}")] {
        let mut stream = running.connect();
        let head = request("/mib.bin", "Transfer-Encoding: chunked\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(body.as_bytes()).expect("sent");
        thread::sleep(PAUSE);
        assert!(read_response(&mut stream).1 == pattern(MIB));
        assert_eq!(read_to_end(&mut stream), b"");
    }
}

#[test]
fn a_refused_connection_gets_a_complete_response() {
    let running = Running::new(|options, _| options.limits.connections = 1);
    let open = running.connect();
    wait_for("the connection", || running.server.stats().connections == 1);
    let mut stream = running.connect();
    for _ in 0..5 {
        thread::sleep(PAUSE / 10);
        stream.write_all(request("/a.txt", "").as_bytes()).expect("sent");
    }
    let (status, _) = read_response(&mut stream);
    assert_eq!(status, 503);
    assert_eq!(read_to_end(&mut stream), b"");
    drop((open, stream));
    wait_for("the end of both", || running.server.stats().connections == 0);
}

#[test]
fn an_idle_timeout_does_not_destroy_an_unread_response() {
    let running = Running::new(|options, _| options.limits.idle_timeout = Duration::from_millis(100));
    let mut stream = running.connect();
    stream.write_all(request("/mib.bin", "").as_bytes()).expect("sent");
    thread::sleep(PAUSE * 2);
    for _ in 0..3 {
        let _ = stream.write_all(request("/a.txt", "").as_bytes());
        thread::sleep(PAUSE / 5);
    }
    assert!(read_response(&mut stream).1 == pattern(MIB));
}

#[test]
fn draining_does_not_destroy_an_unread_response() {
    let running = Running::start();
    let mut stream = running.connect();
    let three = [request("/mib.bin", ""), request("/mib.bin", ""), request("/mib.bin", "")].concat();
    stream.write_all(three.as_bytes()).expect("sent");
    wait_for("the first response", || running.server.stats().requests >= 1);
    running.server.close(Duration::from_secs(20));
    thread::sleep(PAUSE);
    stream.write_all(request("/a.txt", "").as_bytes()).expect("sent");
    let mut complete = 0;
    let mut all = read_to_end(&mut stream);
    while let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") {
        let rest = all.split_off(end + 4);
        assert!(&rest[..MIB] == pattern(MIB), "response {complete} is complete");
        all = rest[MIB..].to_vec();
        complete += 1;
    }
    assert!(complete >= 1);
}

/// Causes: a truncated file, the end of the drain, a forced close.
#[test]
fn an_incomplete_response_ends_in_a_reset() {
    for cause in ["truncated", "drain", "close all"] {
        let running = Running::start();
        let mut stream = running.connect();
        let both = [request("/mib.bin", ""), request("/big.bin", "")].concat();
        stream.write_all(both.as_bytes()).expect("sent");
        wait_for("both requests", || running.server.stats().requests == 2);
        match cause {
            "truncated" => {
                assert!(read_response(&mut stream).1 == pattern(MIB), "the response before it arrives completely");
                // Once the response has begun, the server has opened the file and announced its length.
                stream.read_exact(&mut [0]).expect("the response begins");
                let file = fs::File::options().write(true).open(running.root.path().join("big.bin")).expect("big.bin");
                file.set_len(10 * MIB as u64).expect("truncated");
            }
            "drain" => running.server.close(Duration::from_millis(50)),
            _ => running.server.close_all(),
        }
        if cause != "truncated" {
            wait_for("the end", || running.server.stats().connections == 0);
        }
        let mut rest = Vec::new();
        let error = stream.read_to_end(&mut rest).expect_err(cause);
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{cause}");
        if cause == "truncated" {
            assert!(rest.len() > 10 * MIB, "the bytes before the truncation arrive: {}", rest.len());
        }
    }
}

#[test]
fn an_earlier_response_still_in_flight_does_not_count_as_a_stall() {
    let running = Running::new(|options, _| options.limits.send_timeout = Duration::from_millis(700));
    let mut stream = running.connect();
    // With a small receive buffer, the server sees bytes acknowledged as the client reads them.
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::RcvBuf, &(16 * 1024)).expect("a small buffer");
    stream.write_all([request("/mib.bin", ""), request("/big.bin", "")].concat().as_bytes()).expect("sent");
    let (mut received, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    // A steady rate, for longer than the timeout and the interval of the checks.
    for _ in 0..60 {
        let count = stream.read(&mut buffer).expect("more");
        received.extend_from_slice(&buffer[..count]);
        thread::sleep(Duration::from_millis(40));
    }
    let total = MIB + 12 * MIB;
    while received.len() < total {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => received.extend_from_slice(&buffer[..count]),
            other => panic!("{other:?} after {} bytes", received.len()),
        }
    }
}
