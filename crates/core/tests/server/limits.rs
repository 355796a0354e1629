//! Limits of sizes, times, rates and connections.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use zerosend_core::server::Limit;

use super::server_support::{Running, field, status, wait_for};

#[test]
fn long_heads_are_refused() {
    let running = Running::start();
    let response = running.get(&format!("/{}", "a".repeat(17_000)), "");
    assert_eq!(status(&response), 414);
    assert_eq!(status(&running.get("/a.txt", &format!("X: {}\r\n", "a".repeat(17_000)))), 431);
    assert_eq!(status(&running.get("/a.txt", &"X: a\r\n".repeat(101))), 431);
    assert_eq!(status(&running.get("/a.txt", &"X: a\r\n".repeat(98))), 200);
    assert_eq!(running.server.stats().limits[Limit::Head as usize], 3);
}

#[test]
fn slow_heads_idle_connections_and_slow_bodies_time_out() {
    let short = Duration::from_millis(200);
    let running = Running::new(|options, _| {
        options.limits.head_timeout = short;
        options.limits.idle_timeout = short * 2;
    });
    let began = Instant::now();
    let slow = running.exchange(b"GET /a.txt HTTP/1.1\r\nHos");
    assert_eq!((status(&slow), field(&slow, "connection")), (408, Some("close")));
    assert!(began.elapsed() >= short);
    let began = Instant::now();
    assert_eq!(running.exchange(b""), "", "an idle connection is closed without a response");
    assert!(began.elapsed() >= short * 2);
    let body = running.exchange(b"GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc");
    assert_eq!(status(&body), 200, "the body timeout only closes the connection");
    let stats = running.server.stats();
    assert_eq!(stats.limits[Limit::HeadTimeout as usize], 2);
    assert_eq!(stats.limits[Limit::IdleTimeout as usize], 1);
}

#[test]
fn a_client_that_does_not_read_is_reset() {
    let running = Running::new(|options, _| options.limits.send_timeout = Duration::from_millis(1500));
    let mut stream = running.connect();
    stream.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3).as_slice()).expect("sent");
    wait_for("the send timeout", || running.server.stats().limits[Limit::SendTimeout as usize] == 1);
    wait_for("the connections to close", || running.server.stats().connections == 0);
    assert_eq!(running.server.stats().aborted, 1);
}

#[test]
fn a_client_below_the_minimum_rate_is_reset() {
    let running = Running::new(|options, _| options.limits.min_rate = 3_000_000);
    let mut stream = running.connect();
    stream.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut buffer = vec![0; 64 * 1024];
    let began = Instant::now();
    while running.server.stats().limits[Limit::MinRate as usize] == 0 && began.elapsed() < Duration::from_secs(20) {
        let _ = stream.read(&mut buffer);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(began.elapsed() >= Duration::from_secs(5), "the rate counts after five seconds");
    assert_eq!(running.server.stats().limits[Limit::MinRate as usize], 1);
}

#[test]
fn connections_over_a_limit_get_503() {
    let running = Running::new(|options, _| {
        options.limits.connections = 3;
        options.limits.requests_per_connection = 2;
    });
    let open: Vec<_> = (0..3).map(|_| running.connect()).collect();
    wait_for("three connections", || running.server.stats().connections == 3);
    let refused = running.exchange(b"");
    assert_eq!((status(&refused), field(&refused, "connection")), (503, Some("close")));
    assert_eq!(running.server.stats().limits[Limit::Connections as usize], 1);
    drop(open);
    wait_for("the connections to close", || running.server.stats().connections == 0);
    let three = running.exchange(b"GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3).as_slice());
    assert_eq!(three.matches("HTTP/1.1 200").count(), 2);
    assert_eq!(three.matches("connection: close").count(), 1);

    let running = Running::new(|options, _| options.limits.connections_per_address = 1);
    let open = running.connect();
    wait_for("one connection", || running.server.stats().connections == 1);
    assert_eq!(status(&running.exchange(b"")), 503);
    assert_eq!(running.server.stats().limits[Limit::ConnectionsPerAddress as usize], 1);
    drop(open);
    wait_for("the connections to close", || running.server.stats().connections == 0);
    assert_eq!(status(&running.get("/a.txt", "")), 200);
}
