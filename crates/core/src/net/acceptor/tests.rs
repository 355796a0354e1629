use std::net::TcpStream;

use nix::sys::epoll::EpollTimeout;

use super::*;
use crate::event_loop::slab::Token;
use crate::event_loop::{Scheduler, run};
use crate::net::Address;

enum Message {
    Accepted(Accepted<()>),
    Drain(Instant),
}

struct Worker {
    event_loop: EventLoop<Message>,
    scheduler: Scheduler<()>,
    acceptor: Acceptor<Message>,
    accepted: Vec<OwnedFd>,
    /// Results of [`Accept::free_descriptors`]; `false` when there are none.
    freed: Vec<bool>,
    pauses: usize,
    /// The connection with this index panics.
    panics_at: Option<usize>,
}

impl Handler for Worker {
    type Message = Message;
    type Entry = ();

    fn event_loop(&mut self) -> &mut EventLoop<Message> {
        &mut self.event_loop
    }

    fn scheduler(&mut self) -> &mut Scheduler<()> {
        &mut self.scheduler
    }

    fn token_of_message(&self, _: &Message) -> Option<Token> {
        None
    }

    fn on_event(&mut self, _: u64, _: EpollFlags) {}

    fn on_listener(&mut self) {
        self.accept_batch();
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Accepted(connection) => self.on_accept(connection),
            Message::Drain(deadline) => {
                self.event_loop.drain(deadline);
                self.drain_listener();
            }
        }
    }

    fn before_turns(&mut self) {
        if self.acceptor.has_backlog() {
            self.accept_batch();
        }
    }

    fn on_turn(&mut self, _: Token) {}

    fn on_deadline(&mut self, _: Token) {}

    fn on_panic(&mut self, _: Option<Token>) {}

    fn on_round_end(&mut self) {
        self.resume_accepting();
    }

    fn next_round_at(&self, now: Instant) -> Option<Instant> {
        self.acceptor.next_round_at(now)
    }

    fn is_done(&mut self) -> bool {
        let event_loop = &self.event_loop;
        event_loop.is_drained(|| self.acceptor.is_finished(event_loop.mailbox()))
    }
}

impl Accept for Worker {
    type Reserve = ();

    fn accept_parts(&mut self) -> (&mut Acceptor<Message>, &EventLoop<Message>) {
        (&mut self.acceptor, &self.event_loop)
    }

    fn reserve(&mut self) -> Option<()> {
        Some(())
    }

    fn unreserve(&mut self, (): ()) {}

    fn on_accept(&mut self, connection: Accepted<()>) {
        self.accepted.push(connection.socket);
        if self.panics_at == Some(self.accepted.len()) {
            self.accepted.pop();
            self.panics_at = None;
            panic!("injected");
        }
    }

    fn message(connection: Accepted<()>) -> Message {
        Message::Accepted(connection)
    }

    fn free_descriptors(&mut self) -> bool {
        self.freed.pop().unwrap_or(false)
    }

    fn on_pause(&mut self) {
        self.pauses += 1;
    }
}

/// Workers with one listener, which they share if there are several.
fn workers(count: usize) -> (Vec<Worker>, Address) {
    workers_on(std::net::TcpListener::bind("127.0.0.1:0").expect("a port"), count)
}

fn workers_on(socket: std::net::TcpListener, count: usize) -> (Vec<Worker>, Address) {
    socket.set_nonblocking(true).expect("non-blocking");
    let (listeners, address) = listener::adopt(socket.into(), count, 10).expect("adopted");
    let mailboxes: Vec<_> = (0..count).map(|_| Arc::new(Mailbox::new().expect("an eventfd"))).collect();
    let acceptors = Acceptor::for_workers(listeners, &mailboxes, 10).into_iter().zip(mailboxes);
    let workers = acceptors.map(|(mut acceptor, mailbox)| {
        let event_loop = EventLoop::new(mailbox).expect("an epoll instance");
        acceptor.update_interest(event_loop.epoll()).expect("registered");
        let scheduler = Scheduler::default();
        Worker { event_loop, scheduler, acceptor, accepted: Vec::new(), freed: Vec::new(), pauses: 0, panics_at: None }
    });
    (workers.collect(), address)
}

fn connect(address: &Address) -> TcpStream {
    let Address::Tcp(address) = address else { panic!("a TCP address") };
    TcpStream::connect(address).expect("connected")
}

fn drain(worker: &Worker, milliseconds: u64) {
    let deadline = Instant::now() + Duration::from_millis(milliseconds);
    worker.event_loop.mailbox().send(Message::Drain(deadline));
}

#[test]
fn without_descriptors_accepting_pauses_and_resumes() {
    for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EINVAL] {
        let (mut workers, address) = workers(1);
        let worker = &mut workers[0];
        let _client = connect(&address);
        accept_batch(worker, |_| Err(errno));
        assert_eq!(worker.pauses, 1, "{errno}");
        let paused_until = worker.acceptor.next_round_at(Instant::now()).expect("paused");
        accept_batch(worker, |_| panic!("accepts during a pause"));
        // The loop has no event for the listener until the pause ends.
        drain(worker, 20_000);
        run(worker);
        assert_eq!(worker.accepted.len(), 1, "{errno}");
        assert!(Instant::now() >= paused_until, "{errno}");
    }
}

#[test]
fn accepting_goes_on_after_descriptors_were_freed() {
    let (mut workers, _) = workers(1);
    let worker = &mut workers[0];
    worker.freed = vec![true];
    let mut results = vec![Err(Errno::EMFILE)];
    worker.acceptor.batch = 2;
    accept_batch(worker, |_| results.pop().unwrap_or(Err(Errno::EAGAIN)));
    assert_eq!((worker.pauses, worker.freed.len()), (0, 0));
}

#[test]
fn draining_accepts_the_backlog_and_closes_the_listener() {
    let (mut workers, address) = workers(1);
    let worker = &mut workers[0];
    let _clients = [(); 5].map(|()| connect(&address));
    drain(worker, 20_000);
    run(worker);
    assert_eq!(worker.accepted.len(), 5);
    assert!(worker.acceptor.listener.is_none());
}

#[test]
fn a_panic_closes_one_connection_of_a_batch() {
    let (mut workers, address) = workers(1);
    let worker = &mut workers[0];
    let _clients = [(); 5].map(|()| connect(&address));
    worker.acceptor.batch = 5;
    worker.panics_at = Some(2);
    worker.accept_batch();
    assert_eq!(worker.accepted.len(), 4);
}

#[test]
fn a_closed_listener_has_no_events_although_another_process_has_the_socket() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (mut workers, address) = workers_on(socket.try_clone().expect("a duplicate"), 1);
    let worker = &mut workers[0];
    drain(worker, 20_000);
    run(worker);
    let _client = connect(&address);
    let mut events = [EpollEvent::empty()];
    let count = worker.event_loop.epoll().wait(&mut events, EpollTimeout::from(50u8)).expect("waited");
    assert_eq!(count, 0);
}

#[test]
fn connections_of_a_shared_listener_are_distributed_in_turn() {
    let (mut workers, address) = workers(3);
    let _clients = [(); 6].map(|()| connect(&address));
    workers[0].acceptor.batch = 6;
    workers[0].accept_batch();
    for worker in &workers {
        drain(worker, 20_000);
    }
    assert!(!workers[1].acceptor.is_finished(workers[1].event_loop.mailbox()), "more may come");
    for worker in &mut workers {
        run(worker);
        assert_eq!(worker.accepted.len(), 2);
    }
}
