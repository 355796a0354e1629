//! One panic in each fail point of the reactor ends one transfer, is counted, and the others continue.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use zerosend_core::io::NonBlocking;
use zerosend_core::reactor::{Job, Observer, Reactor, Work};
use zerosend_core::transfer::{Disk, Method, Part, Report, Target, Transfer};
use zerosend_core::{Code, Result, stats};

const TIMEOUT: Duration = Duration::from_secs(20);

struct SendResult(Sender<Result<Report>>);

impl Observer for SendResult {
    fn progress(&mut self, _: u64) {}

    fn done(self: Box<Self>, result: Result<Report>) {
        self.0.send(result).unwrap_or_default();
    }
}

/// Sends `length` bytes.
fn send(length: usize) -> (UnixStream, Receiver<Result<Report>>) {
    let (socket, reader) = UnixStream::pair().expect("a pair");
    let transfer = Transfer::new([Part::Memory(vec![b'x'; length])], Method::Auto, Target::Socket, Disk::ResidentOnly);
    let (sender, result) = channel();
    let job = Job {
        work: Work::Send(transfer),
        peer: Arc::new(NonBlocking::new(socket.into()).expect("a descriptor")),
        timeout: None,
        chunk: 1 << 20,
        progress: None,
        observer: Box::new(SendResult(sender)),
    };
    Reactor::global().submit(job).expect("a reactor");
    (reader, result)
}

#[test]
fn a_panic_ends_one_transfer() {
    super::silence_injected_panics();
    let _scenario = fail::FailScenario::setup();
    // More than the socket takes: blocked until it is read.
    let (mut blocked, blocked_result) = send(4 << 20);
    for name in ["reactor::turn", "reactor::command"] {
        let before = stats::contained_panics();
        // After this one is sent, the first transfer has had its turns.
        let (_reader, result) = send(1);
        result.recv_timeout(TIMEOUT).expect("a result").expect("sent");
        fail::cfg(name, "1*panic(injected)->off").expect("a fail point");
        let (_reader, result) = send(1);
        let error = result.recv_timeout(TIMEOUT).expect("a result").expect_err("a panic");
        assert_eq!(error.code(), Code::Internal, "{name}");
        fail::remove(name);
        let (_reader, result) = send(1);
        assert_eq!(result.recv_timeout(TIMEOUT).expect("a result").expect("sent").bytes, 1, "{name}");
        // Checked last: the error of a dropped command is reported while the panic unwinds, before it is counted.
        assert_eq!(stats::contained_panics(), before + 1, "{name}");
    }
    blocked.read_exact(&mut vec![0; 4 << 20]).expect("all bytes");
    blocked_result.recv_timeout(TIMEOUT).expect("a result").expect("sent");
}
