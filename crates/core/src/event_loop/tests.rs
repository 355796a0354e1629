use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::mailbox::Mailbox;
use super::slab::Token;
use super::{EventLoop, Handler, Scheduler, run};

#[derive(Debug, PartialEq, Eq)]
enum Message {
    Drain(Instant),
    Turn(Token),
}

/// Echoes bytes. A connection that receives `!`, or whose deadline passes, panics.
struct Echo {
    event_loop: EventLoop<Message>,
    connections: Scheduler<UnixStream>,
    panics: Vec<Option<Token>>,
}

impl Echo {
    fn new() -> Self {
        let mailbox = Arc::new(Mailbox::new().expect("an eventfd"));
        Self {
            event_loop: EventLoop::new(mailbox).expect("an epoll instance"),
            connections: Scheduler::default(),
            panics: Vec::new(),
        }
    }

    fn connect(&mut self) -> (Token, UnixStream) {
        let (client, server) = UnixStream::pair().expect("a pair");
        server.set_nonblocking(true).expect("non-blocking");
        let token = self.connections.insert(server).expect("room");
        let server = self.connections.get_mut(token).expect("inserted");
        self.event_loop.epoll().add(server, EpollEvent::new(EpollFlags::EPOLLIN, token)).expect("added");
        (token, client)
    }

    /// Runs until all connections are closed, for 20 s at most.
    fn run(&mut self) {
        self.event_loop.mailbox().send(Message::Drain(Instant::now() + Duration::from_secs(20)));
        run(self);
    }
}

impl Handler for Echo {
    type Message = Message;
    type Entry = UnixStream;

    fn event_loop(&mut self) -> &mut EventLoop<Message> {
        &mut self.event_loop
    }

    fn scheduler(&mut self) -> &mut Scheduler<UnixStream> {
        &mut self.connections
    }

    fn token_of_message(&self, message: &Message) -> Option<Token> {
        if let Message::Turn(token) = message { Some(*token) } else { None }
    }

    fn on_event(&mut self, token: Token, _: EpollFlags) {
        self.connections.enqueue(token);
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Drain(deadline) => drop(self.event_loop.drain(deadline)),
            Message::Turn(token) => self.connections.enqueue(token),
        }
    }

    fn on_turn(&mut self, token: Token) {
        let Some(stream) = self.connections.get_mut(token) else { return };
        let mut bytes = [0; 100];
        match stream.read(&mut bytes) {
            Ok(0) => drop(self.connections.remove(token)),
            Ok(_) if bytes[0] == b'!' => panic!("injected"),
            Ok(count) => stream.write_all(&bytes[..count]).expect("room"),
            Err(_) => {}
        }
    }

    fn on_deadline(&mut self, _: Token) {
        panic!("injected");
    }

    fn on_panic(&mut self, token: Option<Token>) {
        self.panics.push(token);
        token.and_then(|token| self.connections.remove(token));
    }

    fn is_done(&mut self) -> bool {
        self.event_loop.is_drained(|| self.connections.is_empty())
    }
}

fn send(mut stream: &UnixStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("room");
}

fn receive(mut stream: &UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    text
}

#[test]
fn a_panic_in_a_turn_removes_that_connection_only() {
    let mut echo = Echo::new();
    let (_, first) = echo.connect();
    let (token, second) = echo.connect();
    let (_, third) = echo.connect();
    for (stream, text) in [(&first, "first"), (&second, "!"), (&third, "third")] {
        send(stream, text);
        stream.shutdown(std::net::Shutdown::Write).expect("connected");
    }
    echo.run();
    assert_eq!(echo.panics, [Some(token)]);
    assert_eq!([receive(&first), receive(&second), receive(&third)], ["first", "", "third"]);
}

#[test]
fn a_panic_at_a_deadline_removes_that_connection_only() {
    let mut echo = Echo::new();
    let (_, first) = echo.connect();
    let (token, second) = echo.connect();
    echo.connections.set_deadline(token, Some(Instant::now() + Duration::from_millis(20)));
    send(&first, "first");
    first.shutdown(std::net::Shutdown::Write).expect("connected");
    echo.run();
    assert_eq!(echo.panics, [Some(token)]);
    assert_eq!([receive(&first), receive(&second)], ["first", ""]);
}

#[test]
fn draining_ends_without_connections_or_at_its_deadline() {
    let mut echo = Echo::new();
    echo.run();
    let mut echo = Echo::new();
    let (_, _client) = echo.connect();
    let deadline = Instant::now() + Duration::from_millis(50);
    echo.event_loop.mailbox().send(Message::Drain(deadline));
    echo.event_loop.mailbox().send(Message::Drain(deadline + Duration::from_secs(60)));
    run(&mut echo);
    assert!(Instant::now() >= deadline);
    assert!(!echo.connections.is_empty());
}

#[test]
fn messages_to_removed_connections_are_ignored() {
    let mut echo = Echo::new();
    let (token, client) = echo.connect();
    drop(client);
    echo.event_loop.mailbox().send(Message::Turn(token));
    echo.run();
    echo.event_loop.mailbox().send(Message::Turn(token));
    run(&mut echo);
    assert_eq!(echo.panics, []);
    assert_eq!(echo.connections.timers(), 0);
}
