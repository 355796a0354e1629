//! Turns of a connection without a worker.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::*;
use crate::event_loop::EventLoop;
use crate::event_loop::mailbox::Mailbox;
use crate::net::Address;
use crate::server::options::ServerOptions;
use crate::server::shared::Shared;

const TOKEN: Token = 1;
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// A server without mounts, a connection, and its client.
fn connect() -> (Context, Connection, UnixStream) {
    let mut options = ServerOptions::new(Address::Unix("unused".into()), Vec::new());
    options.workers = 1;
    let event_loop = EventLoop::new(Arc::new(Mailbox::new().expect("an eventfd"))).expect("an epoll instance");
    let cx = Context::new(Arc::new(Shared::new(options)), 0, event_loop);
    let (client, server) = UnixStream::pair().expect("a pair of sockets");
    client.set_nonblocking(true).expect("non-blocking");
    server.set_nonblocking(true).expect("non-blocking");
    let connection = Connection::new(server.into(), None, cx.event_loop.now());
    (cx, connection, client)
}

fn received(client: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes);
    String::from_utf8(bytes).expect("text")
}

#[test]
fn a_turn_ends_after_its_share_of_pipelined_requests() {
    let (mut cx, mut connection, mut client) = connect();
    client.write_all(REQUEST.repeat(40).as_bytes()).expect("sent");
    assert_eq!(connection.drive(TOKEN, &mut cx), Next::Turn);
    assert_eq!(received(&mut client).matches("HTTP/1.1 404").count(), MAX_REQUESTS_PER_TURN as usize);
    assert_eq!(connection.drive(TOKEN, &mut cx), Next::Wait);
    assert_eq!(received(&mut client).matches("HTTP/1.1 404").count(), 40 - MAX_REQUESTS_PER_TURN as usize);
}

#[test]
fn an_incomplete_head_gets_408_when_it_expires() {
    let (mut cx, mut connection, mut client) = connect();
    client.write_all(&REQUEST.as_bytes()[..20]).expect("sent");
    assert_eq!(connection.drive(TOKEN, &mut cx), Next::Wait);
    assert!(connection.deadline.is_some() && connection.idle_since().is_none());
    assert_eq!(connection.expired(TOKEN, &mut cx), Next::Wait);
    assert!(received(&mut client).starts_with("HTTP/1.1 408"));
    assert!(connection.is_lingering());
}

#[test]
fn a_panic_before_a_response_gets_500() {
    let (mut cx, mut connection, mut client) = connect();
    assert_eq!(connection.panicked(TOKEN, &mut cx), Next::Wait);
    assert!(received(&mut client).starts_with("HTTP/1.1 500"));
}

#[test]
fn an_idle_connection_closes_when_it_expires_unless_a_request_has_arrived() {
    let (mut cx, mut connection, mut client) = connect();
    assert_eq!(connection.drive(TOKEN, &mut cx), Next::Wait);
    client.write_all(REQUEST.as_bytes()).expect("sent");
    assert_eq!(connection.expired(TOKEN, &mut cx), Next::Wait);
    assert!(received(&mut client).starts_with("HTTP/1.1 404"));
    assert_eq!(connection.expired(TOKEN, &mut cx), Next::Close);
}
